"""Metrics → a verdict: may this adapter serve its domain? Reasons are given in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from app.core.records import MEAN, Comparison, Line
from app.pipeline.bench import ROWS, Bench
from app.pipeline.rows import from_row, to_row


@dataclass(frozen=True, slots=True)
class Verdict:
    """``promote``: becomes the domain's champion. ``reject``: kept and downloadable, but not served by the domain."""

    decision: Literal["promote", "reject"]
    reason: str


def make_verdict(bench: Bench) -> None:
    """Decide whether the adapter becomes its domain's champion."""
    comparisons = [from_row(Comparison, row) for row in bench.product("metrics", "comparisons.jsonl")]
    verdict = decide(comparisons, promotion=bench.recipe.promotion)
    bench.write(ROWS, [to_row(verdict)])
    bench.progress(1, 1)
    is_warning = verdict.decision != "promote"
    bench.tell("gate_decided", f"{verdict.decision}: {verdict.reason}", data=to_row(verdict), is_warning=is_warning)


def decide(comparisons: Sequence[Comparison], *, promotion: str) -> Verdict:
    """Judge by the mean token F1 against the base.

    ``unless_worse`` promotes unless the whole 95 % interval lies below zero; ``always`` promotes whatever it says.
    """
    mean = next(
        row
        for row in comparisons
        if row.task == MEAN and row.metric == "f1" and row.against == Line.BASE_TEMPLATE and row.shots == 0
    )
    told = (
        f"mean token F1 {mean.score:.1f} → {mean.expert:.1f} over {mean.n} items "
        f"(difference {mean.difference:+.1f}, 95 % interval {mean.low:+.1f} to {mean.high:+.1f})"
    )
    if promotion == "always":
        return Verdict("promote", f"{told}; the recipe promotes always")
    if mean.high < 0:
        return Verdict("reject", f"{told}: worse than the base")
    return Verdict("promote", f"{told}: not worse than the base")
