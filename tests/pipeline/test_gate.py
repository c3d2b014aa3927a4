"""The gate keeps out what is surely worse than the base, and says why in words."""

from __future__ import annotations

import pytest

from app.core.records import MEAN, Comparison
from app.pipeline.gate import decide


def mean(low: float, high: float, *, metric: str = "f1") -> Comparison:
    middle = (low + high) / 2
    return Comparison(MEAN, metric, 40, 30.0, 30.0 + middle, middle, low, high)


@pytest.mark.parametrize(
    ("low", "high", "decision"),
    [(2, 8, "promote"), (-4, 6, "promote"), (-6, 0, "promote"), (-6, -0.1, "reject"), (0, 0, "promote")],
)
def test_only_an_interval_below_the_base_is_rejected(low: float, high: float, decision: str) -> None:
    verdict = decide([mean(low, high)], promotion="unless_worse")
    assert verdict.decision == decision
    assert verdict.reason.endswith("worse than the base")
    assert verdict.reason.endswith("not worse than the base") == (decision == "promote")


def test_a_recipe_may_promote_always() -> None:
    verdict = decide([mean(-9, -8)], promotion="always")
    assert (verdict.decision, "promotes always" in verdict.reason) == ("promote", True)


def test_the_figures_are_told() -> None:
    assert decide([mean(2, 8)], promotion="unless_worse").reason.startswith(
        "mean token F1 30.0 → 35.0 over 40 items (difference +5.0, 95 % interval +2.0 to +8.0)"
    )


def test_the_headline_decides_alone() -> None:
    """Neither a task nor another metric."""
    others = [mean(-9, -8, metric="rougeL"), Comparison("tone", "f1", 40, 50.0, 0.0, -50.0, -60.0, -40.0)]
    assert decide([*others, mean(2, 8)], promotion="unless_worse").decision == "promote"
