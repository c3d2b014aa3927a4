"""What a request for a score or a mixture must be, the same for both engines. Knows numbers and texts, no tensors."""

from __future__ import annotations

import math

from app.core.errors import InvalidInput, Problem
from app.core.records import MixtureRequest

_MOST_OFF = 1e-6  # by so much weights may miss 1


def check_mixture(request: MixtureRequest) -> None:
    """Raise InvalidInput, with all that is wrong, for a mixture that means nothing."""
    problems = []
    if not request.prompts:
        problems.append(Problem("prompts", "there is none; give at least one"))
    if len(request.weights) != len(request.prompts):
        reason = f"there are {len(request.weights)} for {len(request.prompts)} prompts; give one a prompt"
        problems.append(Problem("weights", reason))
    if not all(math.isfinite(weight) and weight >= 0 for weight in request.weights):
        problems.append(Problem("weights", f"{list(request.weights)} are not all numbers of 0 or more"))
    elif request.weights and abs(math.fsum(request.weights) - 1) > _MOST_OFF:
        problems.append(Problem("weights", f"they sum to {math.fsum(request.weights)}; divide each by that"))
    if request.mode not in ("sequence", "token"):
        problems.append(Problem("mode", f"{request.mode!r} is neither 'sequence' nor 'token'"))
    if request.max_new_tokens < 1:
        problems.append(Problem("max_new_tokens", f"it is {request.max_new_tokens}; an answer takes at least 1"))
    if problems:
        raise InvalidInput(problems)


def check_fits(param: str, *, num_tokens: int, num_new: int, context_tokens: int) -> None:
    """Raise InvalidInput for a text that, with ``num_new`` tokens after it, is longer than the base reads."""
    if num_tokens + num_new > context_tokens:
        reason = f"it has {num_tokens} tokens, with {num_new} after it; the base reads {context_tokens}"
        raise InvalidInput([Problem(param, reason)])
