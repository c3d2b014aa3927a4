"""The gate keeps out what is surely worse than what it would replace, waits where it cannot tell, and says why."""

from __future__ import annotations

import pytest

from app.core.records import MEAN, Comparison, Line
from app.pipeline.gate import decide
from tests.pipeline.samples import recipe


def compared(
    low: float, high: float, *, n: int = 40, task: str = MEAN, against: str = Line.BASE_TEMPLATE
) -> Comparison:
    middle = (low + high) / 2
    return Comparison(task, "f1", n, against, 0, 30.0, 30.0 + middle, middle, low, high)


@pytest.mark.parametrize(
    ("low", "high", "unless_worse", "if_better", "manual"),
    [
        (2, 8, "promote", "promote", "hold"),
        (0, 8, "promote", "hold", "hold"),
        (-4, 6, "promote", "hold", "hold"),
        (-6, 0, "promote", "hold", "hold"),
        (-6, -0.1, "reject", "reject", "reject"),
        (0, 0, "promote", "hold", "hold"),
    ],
)
def test_the_interval_and_the_rule_decide(
    low: float, high: float, unless_worse: str, if_better: str, manual: str
) -> None:
    rules = {"unless_worse": unless_worse, "if_better": if_better, "manual": manual, "always": "promote"}
    rows = [compared(low, high), compared(low, high, task="tone")]
    assert {rule: decide(rows, recipe=recipe(promotion=rule)).decision for rule in rules} == rules


@pytest.mark.parametrize("rule", ["unless_worse", "if_better", "manual"])
@pytest.mark.parametrize("gain", [-90.0, 90.0])
def test_too_little_evidence_neither_promotes_nor_rejects(rule: str, gain: float) -> None:
    rows = [compared(gain, gain, n=19), compared(gain, gain, n=19, task="tone")]
    verdict = decide(rows, recipe=recipe(promotion=rule))
    assert (verdict.decision, "takes 20 items" in verdict.reason) == ("hold", True)
    assert decide(rows, recipe=recipe(promotion=rule, min_evaluation_items=19)).decision != "hold" or rule == "manual"


@pytest.mark.parametrize(
    ("high", "n", "decision"),
    [
        (-20.1, 5, "reject"),
        (-20.0, 5, "promote"),  # perhaps no more than the limit
        (-20.1, 4, "promote"),  # an interval of four items says nothing
    ],
)
def test_a_task_that_surely_falls_too_far_is_enough_to_reject(high: float, n: int, decision: str) -> None:
    rows = [compared(2, 8), compared(-60, high, n=n, task="tone"), compared(10, 90, task="sense")]
    verdict = decide(rows, recipe=recipe(max_task_drop=20))
    assert verdict.decision == decision
    assert ("on tone" in verdict.reason) == (decision == "reject")
    assert decide(rows, recipe=recipe(max_task_drop=50)).decision == "promote"


def test_who_is_served_is_who_must_be_matched() -> None:
    """Better than the base is not enough where a champion is better still."""
    rows = [compared(20, 30), compared(-9, -5, against=Line.CHAMPION)]
    verdict = decide(rows, recipe=recipe())
    assert (verdict.decision, verdict.reason.endswith("surely worse than the champion")) == ("reject", True)
    assert decide(rows[:1], recipe=recipe()).reason.endswith("surely better than the base")
    assert decide([compared(-9, -5), compared(1, 2, against=Line.CHAMPION)], recipe=recipe()).decision == "promote"


def test_seeds_alone_that_taught_surely_more_are_told_of() -> None:
    """A verdict said nothing of it: an expert at half of what its seeds alone reach was called better than the base."""
    rows = [
        compared(2, 8),
        compared(-16, -3, against=Line.SEEDS_SAME_EPOCHS),
        compared(-9, 2, against=Line.SEEDS_SAME_STEPS),
    ]
    verdict = decide(rows, recipe=recipe())
    assert verdict.decision == "promote"
    assert "surely worse than an adapter of the seeds alone (30.0)" in verdict.reason
    assert "`sizes`" in verdict.reason
    assert "seeds alone" not in decide([rows[0], rows[2]], recipe=recipe()).reason


def test_a_recipe_may_promote_always() -> None:
    verdict = decide([compared(-9, -8, n=1)], recipe=recipe(promotion="always"))
    assert (verdict.decision, "promotes always" in verdict.reason) == ("promote", True)


def test_the_figures_are_told() -> None:
    assert decide([compared(2, 8)], recipe=recipe()).reason.startswith(
        "mean token F1 30.0 (the base) → 35.0 over 40 items (difference +5.0, 95 % interval +2.0 to +8.0): "
    )


def test_the_headline_decides_alone() -> None:
    """Neither another metric, nor answers with demonstrations, nor a control."""
    bad = {"score": 50.0, "expert": 0.0, "difference": -50.0, "low": -60.0, "high": -40.0}
    others = [
        Comparison(MEAN, "rougeL", 40, Line.BASE_TEMPLATE, 0, **bad),
        Comparison(MEAN, "f1", 40, Line.BASE_TEMPLATE, 5, **bad),
        Comparison(MEAN, "f1", 40, Line.SEEDS_SAME_STEPS, 0, **bad),
        Comparison("tone", "f1", 40, Line.SEEDS_SAME_STEPS, 0, **bad),
    ]
    assert decide([*others, compared(2, 8)], recipe=recipe()).decision == "promote"
