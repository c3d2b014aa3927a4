"""Which of several answers is kept, and how sure it is."""

from __future__ import annotations

import pytest

from app.pipeline.agreement import most_agreed


@pytest.mark.parametrize(
    ("answers", "position", "agreement"),
    [
        (["good"], 0, 1.0),
        (["good", "good"], 0, 1.0),
        (["bad", "good", "good"], 1, 0.5),
        (["good", "bad"], 0, 0.0),
        (["a firm", "the firm", "firm"], 0, 1.0),
        (["x y", "x", "y"], 0, 2 / 3),
        (["", "good", ""], 0, 0.5),
    ],
)
def test_the_one_most_like_the_others(answers: list[str], position: int, agreement: float) -> None:
    chosen, agreed = most_agreed(answers)
    assert chosen == position
    assert agreed == pytest.approx(agreement)


def test_answers_that_may_not_be_chosen_count_as_disagreement() -> None:
    chosen, agreed = most_agreed(["bad", "bad", "good", "good"], [False, False, True, True])
    assert chosen == 2
    assert agreed == pytest.approx(1 / 3)
    assert most_agreed(["bad"], [False]) == (0, 0.0)


def test_nothing_to_choose_from() -> None:
    with pytest.raises(ValueError, match="no answer"):
        most_agreed([])
