"""Which prompt each reply of a job is asked with, where the same prompt is asked several times.

The tasks' prompts take turns, and the round is gone through ``replies_per_prompt`` times before the next prompts come:
wherever a job of up to 16 tasks ends, each has had as many replies as any other, give or take one, and a prompt that is
asked again comes back soon enough for the engine to know it. With more tasks a round holds 16 of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.core.recipe import Recipe
from app.core.records import Seed

_LONGEST_ROUND = 16  # prompts; what the engine must keep of them grows with it


def prompt_of(index: int, seeds: Sequence[Seed], recipe: Recipe) -> int:
    """The number of the prompt that reply ``index`` is asked for with; both count from 0."""
    length = _round_length(seeds)
    return index // (length * recipe.replies_per_prompt) * length + index % length


def count_prompts(num_replies: int, seeds: Sequence[Seed], recipe: Recipe) -> int:
    """Different prompts among those of the first replies."""
    length = _round_length(seeds)
    whole, rest = divmod(num_replies, length * recipe.replies_per_prompt)
    return whole * length + min(rest, length)


def _round_length(seeds: Sequence[Seed]) -> int:
    return max(1, min(_LONGEST_ROUND, len({(seed.domain, seed.task) for seed in seeds})))
