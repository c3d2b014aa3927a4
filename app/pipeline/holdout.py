"""Seeds → a part to learn from and a part to be judged by, when the user gave no evaluation set."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from app.core.records import Seed


@dataclass(frozen=True, slots=True)
class Split:
    """``training`` is shown and learned, ``evaluation`` is neither."""

    training: tuple[Seed, ...]
    evaluation: tuple[Seed, ...]
    is_holdout: bool  # evaluation was cut from the seeds


def split_seeds(seeds: Sequence[Seed], evaluation: Sequence[Seed], *, fraction: float, seed: int) -> Split:
    """The uploaded evaluation set, or ``fraction`` of each task's seeds (one at least, never a task's only seed)."""
    if evaluation:
        return Split(tuple(seeds), tuple(evaluation), is_holdout=False)
    held: set[str] = set()
    for task in sorted({row.task for row in seeds}):
        own = [row.id for row in seeds if row.task == task]
        count = min(max(1, round(fraction * len(own))), len(own) - 1)
        held.update(random.Random(f"{seed}/holdout/{task}").sample(own, count))
    training = tuple(row for row in seeds if row.id not in held)
    return Split(training, tuple(row for row in seeds if row.id in held), is_holdout=True)
