"""Data sets → seeds and evaluation items: ``<domain>/<task>/{train,test}.jsonl``, drawn by a seed number.

Nothing of them is kept: the report counts, it does not quote. Test items are only ever evaluated with.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.records import digest_of
from app.pipeline.template import ALPACA
from benchmarks.quality.plan import Plan, PlanError, Run

KEYS = ("task", "instruction", "input", "output", "references")  # what is sent of an item

Item = dict[str, Any]
Fits = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Taken:
    """How many items of one task take part; ``too_long``: passed over while drawing, ``repeated`` likewise."""

    seeds: int
    items: int
    too_long: int
    repeated: int


@dataclass(frozen=True, slots=True)
class Sets:
    """What one job is sent."""

    seeds: tuple[Item, ...]
    evaluation: tuple[Item, ...]
    taken: dict[str, Taken]

    @property
    def digest(self) -> str:
        return digest_of(lines_of(self.seeds), lines_of(self.evaluation))


def draw_sets(folder: Path, run: Run, plan: Plan, *, fits: Fits) -> Sets:
    """The seeds and the items of a run; ``fits``: whether a row with its template is short enough for the recipe.

    Raises PlanError for a folder that has no such data.
    """
    seeds: list[Item] = []
    evaluation: list[Item] = []
    taken = {}
    for task in _tasks(folder, run):
        train = _Draw(_read(folder / run.domain / task / "train.jsonl"), f"{plan.seed}/train/{task}", fits)
        own = train.take(plan.seeds_per_task[run.domain])
        others = train
        if plan.evaluation == "test":
            others = _Draw(_read(folder / run.domain / task / "test.jsonl"), f"{plan.seed}/test/{task}", fits)
            others.asked |= train.asked
        items = others.take(plan.items_per_task)
        counts = [train, *([others] if others is not train else [])]
        too_long, repeated = (sum(getattr(draw, name) for draw in counts) for name in ("too_long", "repeated"))
        taken[task] = Taken(len(own), len(items), too_long, repeated)
        seeds, evaluation = [*seeds, *own], [*evaluation, *items]
    return Sets(tuple(seeds), tuple(evaluation), taken)


def check_data(folder: Path, run: Run, *, retrieves: bool) -> None:
    """Raise PlanError unless there is something to draw from."""
    _tasks(folder, run)
    if retrieves:
        corpus_of(folder, run)


def corpus_of(folder: Path, run: Run) -> Path:
    """The domain's passages. Raises PlanError."""
    path = folder / run.domain / "corpus.jsonl"
    if not path.is_file():
        raise PlanError(f"run {run.name} retrieves, and there is no {run.domain}/corpus.jsonl in the data")
    return path


def lines_of(items: Sequence[Item]) -> str:
    """JSONL."""
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)


class _Draw:
    """Items of a file in a random order, each once; counts what it passes over."""

    def __init__(self, items: Sequence[Item], seed: str, fits: Fits) -> None:
        self._left = iter(random.Random(seed).sample(items, len(items)))
        self._fits = fits
        self.asked: set[tuple[str, str]] = set()
        self.too_long = self.repeated = 0

    def take(self, number: int) -> list[Item]:
        """The next so many that can be used, or all there are."""
        taken: list[Item] = []
        while len(taken) < number and (item := next(self._left, None)) is not None:
            question = (_plain(item["instruction"]), _plain(item.get("input") or ""))
            if question in self.asked:
                self.repeated += 1
            elif not self._fits(ALPACA.render(item["instruction"], item.get("input") or "") + item["output"]):
                self.too_long += 1
            else:
                self.asked.add(question)
                taken.append({key: item[key] for key in KEYS if item.get(key)})
        return taken


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _tasks(folder: Path, run: Run) -> list[str]:
    if not folder.is_dir():
        raise PlanError(f"there is no folder {folder}: set DATA to one with <domain>/<task>/{{train,test}}.jsonl")
    found = sorted(path.parent.name for path in (folder / run.domain).glob("*/train.jsonl"))
    if not found or (missing := set(run.tasks) - set(found)):
        wanted = ", ".join(sorted(missing)) if found else "any task"
        raise PlanError(f"run {run.name}: {folder / run.domain} has no train.jsonl of {wanted}")
    return [task for task in found if not run.tasks or task in run.tasks]


def _read(path: Path) -> list[Item]:
    return list(_rows(path))


def _rows(path: Path) -> Iterator[Item]:
    """Raises PlanError."""
    try:
        with path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.strip())
    except (OSError, ValueError) as error:
        raise PlanError(f"{path}: {error}") from error
