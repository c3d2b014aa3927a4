"""Metrics → a verdict: may this adapter serve its domain? Reasons are given in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from app.core.recipe import Recipe
from app.core.records import MEAN, Comparison, Line
from app.pipeline.bench import COMPARISONS, ROWS, Bench
from app.pipeline.rows import from_row, to_row

MIN_TASK_ITEMS = 5  # of fewer items an interval says nothing: two that happen to agree make it a point


@dataclass(frozen=True, slots=True)
class Verdict:
    """``promote``: becomes the domain's champion. ``hold``: whether it should is not known. ``reject``: it should not.

    What is not promoted is kept, can be downloaded and asked by name, and promoted by hand.
    """

    decision: Literal["promote", "hold", "reject"]
    reason: str


def make_verdict(bench: Bench) -> None:
    """Decide whether the adapter becomes its domain's champion."""
    comparisons = [from_row(Comparison, row) for row in bench.product("metrics", COMPARISONS)]
    verdict = decide(comparisons, recipe=bench.recipe)
    bench.write(ROWS, [to_row(verdict)])
    bench.progress(1, 1)
    is_warning = verdict.decision != "promote" or better_control(comparisons) is not None
    bench.tell("gate_decided", f"{verdict.decision}: {verdict.reason}", data=to_row(verdict), is_warning=is_warning)


def decide(comparisons: Sequence[Comparison], *, recipe: Recipe) -> Verdict:
    """Judge by token F1 without demonstrations: against the champion where it answered too, else against the base.

    In this order: ``always`` promotes. Fewer than ``min_evaluation_items`` hold. A mean whose whole 95 % interval lies
    below zero rejects, and so does a task (of ``MIN_TASK_ITEMS`` items or more) whose whole interval lies below
    -``max_task_drop``: surely worse by more than that. Then ``manual`` holds, ``if_better`` holds unless the mean's
    interval lies above zero, and what is left is promoted. Where the seeds alone taught surely more, that is told, too:
    it may still be better than what is served.
    """
    control = better_control(comparisons)
    rows = [row for row in comparisons if row.metric == "f1" and row.shots == 0]
    rival = Line.CHAMPION if any(row.against == Line.CHAMPION for row in rows) else Line.BASE_TEMPLATE
    rows = [row for row in rows if row.against == rival]
    mean = next(row for row in rows if row.task == MEAN)
    name = "the champion" if rival is Line.CHAMPION else "the base"
    decision, why = _decide(mean, [row for row in rows if row.task != MEAN], name, recipe)
    told = (
        f"mean token F1 {mean.score:.1f} ({name}) → {mean.expert:.1f} over {mean.n} items "
        f"(difference {mean.difference:+.1f}, 95 % interval {mean.low:+.1f} to {mean.high:+.1f})"
    )
    if control is not None:
        why += (
            f"; surely worse than an adapter of the seeds alone ({control.score:.1f}): what was generated did harm, "
            "and a recipe with 0 among its `sizes` would have let held-out seeds choose"
        )
    return Verdict(decision, f"{told}: {why}")


def better_control(comparisons: Sequence[Comparison]) -> Comparison | None:
    """The better of the adapters of the seeds alone, if it is surely better than the expert without demonstrations."""
    lines = (Line.SEEDS_SAME_EPOCHS, Line.SEEDS_SAME_STEPS)
    means = [
        row for row in comparisons if (row.metric, row.shots, row.task) == ("f1", 0, MEAN) and row.against in lines
    ]
    return max((row for row in means if row.high < 0), key=lambda row: row.score, default=None)


def _decide(
    mean: Comparison, tasks: Sequence[Comparison], name: str, recipe: Recipe
) -> tuple[Literal["promote", "hold", "reject"], str]:
    if recipe.promotion == "always":
        return "promote", "the recipe promotes always"
    if mean.n < recipe.min_evaluation_items:
        least = recipe.min_evaluation_items
        return (
            "hold",
            f"too little to decide by, for it takes {least} items: send more evaluation, or promote it by hand",
        )
    if mean.high < 0:
        return "reject", f"surely worse than {name}"
    if fallen := [row for row in tasks if row.n >= MIN_TASK_ITEMS and row.high < -recipe.max_task_drop]:
        listed = ", ".join(f"{row.task} {row.score:.1f} → {row.expert:.1f} ({row.n} items)" for row in fallen)
        return "reject", f"surely more than {recipe.max_task_drop:g} points worse than {name} on {listed}"
    if recipe.promotion == "manual":
        return "hold", "the recipe leaves it to you to promote it"
    if mean.low > 0:
        return "promote", f"surely better than {name}"
    if recipe.promotion == "if_better":
        return "hold", f"not surely better than {name}: send more evaluation, or promote it by hand"
    return "promote", f"not surely worse than {name}"
