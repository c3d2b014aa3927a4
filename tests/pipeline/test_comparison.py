"""Means and intervals against what they must be."""

from __future__ import annotations

import math
import random

import pytest

from app.core.records import MEAN, Comparison, Judged, Line
from app.pipeline.comparison import NUM_RESAMPLES, OverShots, compare, over_shots
from app.pipeline.scores import METRICS
from tests.pipeline.samples import judged, judged_both


def both(*items: tuple[str, float, float]) -> list[Judged]:
    """Answers of base and expert to items, each a task and two scores."""
    return [row for number, (task, *scores) in enumerate(items) for row in judged_both(task, *scores, number=number)]


def find(rows: list[Comparison], task: str, metric: str = "f1", *, against: str = Line.BASE_TEMPLATE) -> Comparison:
    [row] = [row for row in rows if (row.task, row.metric, row.against) == (task, metric, against)]
    return row


def test_the_mean_is_the_plain_mean_over_tasks() -> None:
    """However many items a task has (paper App. A)."""
    rows = compare(both(("a", 0, 100), *[("b", 50.0, 50.0)] * 9), seed=0)
    assert {(row.task, row.metric) for row in rows} == {(t, m) for t in ("a", "b", MEAN) for m in METRICS}
    mean = find(rows, MEAN)
    assert (mean.n, mean.score, mean.expert, mean.difference) == (10, 25.0, 75.0, 50.0)
    expected = Comparison("a", "f1", 1, Line.BASE_TEMPLATE, 0, 0.0, 100.0, 100.0, 100.0, 100.0)
    assert find(rows, "a") == expected


def test_every_other_line_is_compared_with_the_expert_at_its_own_number_of_demonstrations() -> None:
    rows = [
        *both(("a", 10, 40), ("a", 20, 60)),
        *[judged("a", Line.CHAMPION, score, number=number) for number, score in enumerate((50, 70))],
        *judged_both("a", 30, 35, shots=5),
    ]
    random.Random(0).shuffle(rows)
    rows.sort(key=lambda row: row.id)  # items in order, lines and shots mixed
    found = [(row.against, row.shots, row.difference) for row in compare(rows, seed=0) if row.metric == "f1"]
    assert sorted(found) == [
        ("base_template", 0, 35.0),
        ("base_template", 0, 35.0),
        ("base_template", 5, 5.0),
        ("base_template", 5, 5.0),
        ("champion", 0, -10.0),
        ("champion", 0, -10.0),
    ]


def test_a_task_may_be_called_mean() -> None:
    rows = compare(both(("mean", 0, 100), ("b", 50, 50)), seed=0)
    assert find(rows, MEAN).difference == 50.0
    assert find(rows, "mean (task)").difference == 100.0


@pytest.mark.parametrize(("number", "tasks"), [(20, "a"), (80, "a"), (20, "ab"), (40, "abcd")])
def test_intervals_are_as_wide_as_they_must_be(number: int, tasks: str) -> None:
    """Gains of 5 ± 10, so 1.96 standard errors of their mean to either side; a mean over tasks has so much less."""
    gains = [5 + 10 * math.sqrt(3) * (2 * (index + 0.5) / number - 1) for index in range(number)]
    rows = both(*[(task, 50, 50 + gain) for task in tasks for gain in gains])
    row = find(compare(rows, seed=0), MEAN)
    margin = 1.96 * 10 / math.sqrt(number * len(tasks))
    assert row.low == pytest.approx(5 - margin, abs=0.1 * margin)
    assert row.high == pytest.approx(5 + margin, abs=0.1 * margin)


def test_an_interval_agrees_with_a_bootstrap_written_out() -> None:
    chance = random.Random(2)
    gains = [chance.gauss(3, 20) for _ in range(30)]
    means = sorted(sum(chance.choices(gains, k=30)) / 30 for _ in range(NUM_RESAMPLES))
    row = find(compare(both(*[("a", 0.0, gain) for gain in gains]), seed=0), "a")
    width = means[-51] - means[50]
    assert row.low == pytest.approx(means[50], abs=0.1 * width)
    assert row.high == pytest.approx(means[-51], abs=0.1 * width)


def test_an_interval_is_paired() -> None:
    """Items differ a lot, the gain does not: the interval is that of the gain."""
    row = find(compare(both(*[("a", base, base + 1) for base in range(0, 90, 3)]), seed=0), "a")
    assert (row.low, row.high) == (1.0, 1.0)


def test_figures_are_repeatable() -> None:
    rows = both(*[("a", number, 2 * number % 17) for number in range(20)])
    assert compare(rows, seed=3) == compare(rows, seed=3)
    assert find(compare(rows, seed=3), "a") != find(compare(rows, seed=4), "a")


def test_more_demonstrations_do_not_change_the_headline() -> None:
    rows = both(*[("a", number, 2 * number % 17) for number in range(20)])
    more = [*rows, *[row for number in range(20) for row in judged_both("a", 1, number, number=number, shots=1)]]
    assert [row for row in compare(more, seed=0) if row.shots == 0] == compare(rows, seed=0)


def test_worst_average_and_best_are_of_each_task_and_only_then_averaged() -> None:
    """Task a is best without demonstrations, task b with five: the mean of the bests is no number's mean."""
    scores = {0: (60, 10), 1: (30, 20), 5: (0, 90)}
    rows = [
        row
        for shots, (first, second) in scores.items()
        for row in (*judged_both("a", 5, first, shots=shots), *judged_both("b", 5, second, shots=shots))
    ]
    found = over_shots(compare(rows, seed=0))
    assert [row for row in found if (row.line, row.metric) == (Line.EXPERT, "f1")] == [
        OverShots("expert", "a", "f1", 0.0, 30.0, 60.0),
        OverShots("expert", "b", "f1", 10.0, 40.0, 90.0),
        OverShots("expert", MEAN, "f1", 5.0, 35.0, 75.0),
    ]
    assert {row.line for row in found} == {"base_template", "expert"}


def test_one_number_of_demonstrations_has_no_worst_and_best() -> None:
    assert over_shots(compare(both(("a", 1, 2)), seed=0)) == []
