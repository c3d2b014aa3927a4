"""How likely the fake engine finds a text: its own answer is likely, whatever else is not, the same at every call.

The tokens of the greedy answer have the log-probabilities that are told with it; the first token that is another, and
all after it, have low ones that depend on the prompt, the adapter and what came before. They are no distribution.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from app.core.records import GenerationRequest, MixtureCompletion, MixtureRequest, Score, ScoreRequest
from app.engine.fake_text import tokens_of, write

_LIKELY_END, _UNLIKELY_END = -0.05, -4.0  # log-probability that a text ends where the answer does, and elsewhere


def score(request: ScoreRequest) -> Score:
    """The sum over the continuation's tokens, and the end's where it is asked for."""
    tokens = tokens_of(request.continuation)
    told = _log_probabilities(request.prompt, request.adapter, tokens)
    if request.with_end:
        own = [token for token, _ in _greedy(request.prompt, request.adapter)]
        told.append(_LIKELY_END if tokens == own else _UNLIKELY_END)
    return Score(math.fsum(told), len(told))


def mix(request: MixtureRequest) -> MixtureCompletion:
    """What the prompt with the largest weight is answered, and how likely all prompts together find that."""
    heaviest = request.prompts[request.weights.index(max(request.weights))]
    asked = GenerationRequest(heaviest, request.adapter, max_new_tokens=request.max_new_tokens, stop=request.stop)
    written = write(asked)
    text = "".join(piece.text for piece in written.pieces)
    tokens = tokens_of(text)
    total, weights = 0.0, [*request.weights]
    for at_token in zip(*(_log_probabilities(each, request.adapter, tokens) for each in request.prompts), strict=True):
        joint = [weight * math.exp(told) for weight, told in zip(weights, at_token, strict=True)]
        total += math.log(math.fsum(joint))
        if request.mode == "sequence":
            weights = [each / math.fsum(joint) for each in joint]
    return MixtureCompletion(text, written.finish_reason, len(tokens), request.adapter, total, tuple(weights))


def _log_probabilities(prompt: str, adapter: str | None, tokens: Sequence[str]) -> list[float]:
    own, told, is_own = _greedy(prompt, adapter), [], True
    for position, token in enumerate(tokens):
        is_own = is_own and position < len(own) and own[position][0] == token
        unlikely = -random.Random(f"{prompt}|{adapter}|{tokens[: position + 1]}").uniform(3, 6)
        told.append(own[position][1] if is_own else unlikely)
    return told


def _greedy(prompt: str, adapter: str | None) -> list[tuple[str, float]]:
    """The tokens of the whole greedy answer, with their log-probabilities."""
    pieces = write(GenerationRequest(prompt, adapter, max_new_tokens=10_000, logprobs=0)).pieces
    return [(piece.text.strip(), piece.logprobs[0].logprob) for piece in pieces]
