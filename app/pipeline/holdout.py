"""Seeds → a part to learn from and a part to be judged by, when the user gave no evaluation set."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from app.core.errors import InvalidInput, Problem
from app.core.records import Seed
from app.core.texts import evened

Question = tuple[str, str]  # instruction and input


@dataclass(frozen=True, slots=True)
class Split:
    """``training`` is shown and learned, the rest is neither.

    What chooses (between iterations, sizes) looks at ``holdout``; what is reported is measured on ``evaluation``.
    """

    training: tuple[Seed, ...]
    evaluation: tuple[Seed, ...]
    is_holdout: bool  # no evaluation set was given: both are the same held-out seeds
    holdout: tuple[Seed, ...] = ()


def split_seeds(
    seeds: Sequence[Seed], evaluation: Sequence[Seed], *, fraction: float, seed: int, chooses: bool = False
) -> Split:
    """The uploaded evaluation set, or ``fraction`` of each task's questions (one at least, never its only one).

    ``chooses``: hold out seeds beside an uploaded evaluation set too, for the job has something to choose by them.
    Seeds that ask the same thing stay together, so no question that was learned is judged by. Raises InvalidInput if
    nothing can be held out.
    """
    if evaluation and not chooses:
        return Split(tuple(seeds), tuple(evaluation), is_holdout=False)
    held = _draw(seeds, fraction=fraction, seed=seed)
    if not held:
        remedy = "send more seeds, or ask for one iteration and no sizes" if evaluation else "send evaluation"
        reason = f"no task has two different questions, so none can be held out to judge the expert: {remedy}"
        raise InvalidInput([Problem("seeds", reason, source="seeds")])
    training = tuple(row for row in seeds if question_of(row) not in held)
    holdout = tuple(row for row in seeds if question_of(row) in held)
    return Split(training, tuple(evaluation) or holdout, is_holdout=not evaluation, holdout=holdout)


def _draw(seeds: Sequence[Seed], *, fraction: float, seed: int) -> set[Question]:
    """Questions to hold out; one that several tasks ask is left in."""
    tasks: dict[Question, set[str]] = {}
    for row in seeds:
        tasks.setdefault(question_of(row), set()).add(row.task)
    held: set[Question] = set()
    for task in sorted({row.task for row in seeds}):
        own = [question for question, asking in tasks.items() if asking == {task}]
        count = min(max(1, round(fraction * len(own))), len(own) - 1)
        if count > 0:
            held.update(random.Random(f"{seed}/holdout/{task}").sample(own, count))
    return held


def question_of(row: Seed) -> Question:
    """What is asked, with case and spacing evened out."""
    return evened(row.instruction), evened(row.input)
