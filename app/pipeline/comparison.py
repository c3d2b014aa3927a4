"""Scores → comparisons: the expert beside every other line, and how sure their difference is.

Intervals are those of the paired bootstrap: the items of each task are drawn again with replacement, the same draws
for both lines, and the middle 95 % of the differences is told. The overall figure is the plain mean over tasks, however
many items a task has (paper App. A), and so is each of its draws.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.core.records import MEAN, Comparison, Judged, Line
from app.pipeline.scores import METRICS

NUM_RESAMPLES = 2000
_BLOCK = 1_000_000  # items drawn at a time: bounds memory
_DIGITS = 9  # beyond these only the order of additions shows

Floats = NDArray[np.float64]
Tasks = Mapping[str, NDArray[np.intp]]  # positions of each task's items


@dataclass(frozen=True, slots=True)
class OverShots:
    """One line's scores over the numbers of demonstrations (paper Table 5). Of ``MEAN``: the means over tasks."""

    line: str
    task: str
    metric: str
    worst: float
    average: float
    best: float


def compare(judged: Iterable[Judged], *, seed: int) -> list[Comparison]:
    """The expert against every other line: each task and the plain mean over tasks (``MEAN``).

    Every line must have answered the same items in the same order; the rows of several lines may be mixed.
    """
    tables: dict[int, dict[str, array[float]]] = {}
    tasks: dict[int, list[str]] = {}
    for row in judged:
        table = tables.setdefault(row.shots, {}).setdefault(row.line, array("d"))
        table.extend(row.scores[metric] for metric in METRICS)
        if row.line == Line.EXPERT:
            tasks.setdefault(row.shots, []).append(row.task)
    return [
        comparison
        for shots, table in tables.items()
        for comparison in _compare({line: _matrix(scores) for line, scores in table.items()}, tasks[shots], shots, seed)
    ]


def over_shots(comparisons: Sequence[Comparison]) -> list[OverShots]:
    """Worst, average and best over the numbers of demonstrations, of lines that were asked with several."""
    scores: dict[tuple[str, str, str], dict[int, float]] = {}
    for row in comparisons:
        if row.task != MEAN:
            scores.setdefault((row.against, row.metric, row.task), {})[row.shots] = row.score
            scores.setdefault((Line.EXPERT, row.metric, row.task), {})[row.shots] = row.expert
    found: dict[tuple[str, str], list[OverShots]] = {}
    for (line, metric, task), by_shots in scores.items():
        if len(by_shots) > 1:
            few, mean, most = min(by_shots.values()), _mean(by_shots.values()), max(by_shots.values())
            found.setdefault((line, metric), []).append(OverShots(line, task, metric, few, mean, most))
    return [row for (line, metric), rows in found.items() for row in (*rows, _mean_row(line, metric, rows))]


def _mean_row(line: str, metric: str, rows: Sequence[OverShots]) -> OverShots:
    worst, average, best = (_mean(column) for column in zip(*((r.worst, r.average, r.best) for r in rows), strict=True))
    return OverShots(line, MEAN, metric, worst, average, best)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return round(sum(listed) / len(listed), _DIGITS)


def _matrix(scores: array[float]) -> Floats:
    return np.frombuffer(scores, dtype=np.float64).reshape(-1, len(METRICS))  # (items, metrics)


def _compare(table: Mapping[str, Floats], tasks: Sequence[str], shots: int, seed: int) -> Iterator[Comparison]:
    rivals = [line for line in table if line != Line.EXPERT]
    if not rivals:
        return
    named = np.array([f"{MEAN} (task)" if task == MEAN else task for task in tasks])  # a user's task may be called so
    places: Tasks = {task: np.flatnonzero(named == task) for task in dict.fromkeys(named.tolist())}
    scores = np.stack([table[line] for line in rivals], axis=1)  # (items, rivals, metrics)
    expert = table[Line.EXPERT][:, None, :]
    gains = (expert - scores).reshape(len(tasks), -1)  # (items, rivals × metrics)
    chance = np.random.default_rng([seed, shots])
    draws = [_resampled(gains[at], chance) for at in places.values()]
    bounds = [_middle(drawn) for drawn in (*draws, np.mean(draws, axis=0))]
    for number, line in enumerate(rivals):
        for column, metric in enumerate(METRICS):
            theirs, ours = (_means(table[who][:, column], places) for who in (line, Line.EXPERT))
            at = number * len(METRICS) + column
            counts = [*map(len, places.values()), len(tasks)]
            for task, n, low_high, score, own in zip((*places, MEAN), counts, bounds, theirs, ours, strict=True):
                low, high = (round(float(bound[at]), _DIGITS) for bound in low_high)
                yield Comparison(task, metric, n, line, shots, score, own, round(own - score, _DIGITS), low, high)


def _means(scores: Floats, places: Tasks) -> list[float]:
    """Of each task, then of those."""
    means = [float(scores[at].mean()) for at in places.values()]
    return [round(mean, _DIGITS) for mean in (*means, sum(means) / len(means))]


def _resampled(gains: Floats, chance: np.random.Generator) -> Floats:
    """Means of one task's gains when its items are drawn again with replacement: (resamples, columns)."""
    size = len(gains)
    block = max(1, _BLOCK // size)
    drawn = []
    for first in range(0, NUM_RESAMPLES, block):
        rows = min(block, NUM_RESAMPLES - first)
        picks = chance.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        counts = np.bincount(picks.ravel(), minlength=rows * size).reshape(rows, size)
        drawn.append(counts @ gains / size)
    return np.concatenate(drawn)


def _middle(draws: Floats) -> tuple[Floats, Floats]:
    """The ends of the middle 95 %, by column."""
    ordered = np.sort(draws, axis=0)
    return ordered[int(0.025 * NUM_RESAMPLES)], ordered[int(0.975 * NUM_RESAMPLES) - 1]
