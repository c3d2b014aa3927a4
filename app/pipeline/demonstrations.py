"""Training seeds → what is shown before an evaluation item: the same for every line, and for every item of a task."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import chain, zip_longest

from app.core.records import Seed


class Demonstrations:
    """Chosen by one seed number; fewer are always the first of more."""

    def __init__(self, seeds: Sequence[Seed], *, seed: int, most: int) -> None:
        """``seeds``: none that is judged by. ``most``: never more than this many are asked for."""
        self._seed, self._most = seed, most
        self._of_task: dict[str, list[Seed]] = {}
        for row in seeds:
            self._of_task.setdefault(row.task, []).append(row)
        self._decks: dict[str, tuple[Seed, ...]] = {}

    def of(self, task: str, count: int) -> tuple[Seed, ...]:
        """Seeds of the task; where it has too few, other tasks' seeds behind them, one of each in turn."""
        if task not in self._decks:
            others = [self._shuffled(other) for other in sorted(self._of_task) if other != task]
            in_turn = (row for row in chain.from_iterable(zip_longest(*others)) if row is not None)
            self._decks[task] = tuple(chain(self._shuffled(task), in_turn))[: self._most]
        return self._decks[task][:count]

    def _shuffled(self, task: str) -> list[Seed]:
        deck = list(self._of_task.get(task, ()))
        random.Random(f"{self._seed}/demonstrations/{task}").shuffle(deck)
        return deck
