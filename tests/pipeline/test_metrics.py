"""Scores against values worked out by hand, and intervals against what they must be."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from app.core.records import MEAN, Answer, Comparison
from app.engine.fake import write_fake_adapter
from app.pipeline.metrics import ITEMS_PER_WAVE, METRICS, compare, judge, rouge_l, score_answer, token_f1, write_answers
from app.pipeline.template import ALPACA
from tests.pipeline.samples import Recorder, judged, recipe, seeds


@pytest.mark.parametrize(
    ("answer", "reference", "f1"),
    [
        ("good", "good", 1.0),
        ("bad", "good", 0.0),
        ("The Good, a!", "good", 1.0),  # case, articles and punctuation do not count
        ("Ann Ltd", "Ann Ltd, Bob plc", 2 * 2 / (2 + 4)),
        ("yes yes", "yes no", 2 * 1 / (2 + 2)),  # a word counts as often as both have it
        ("a cat sat on the mat", "the cat was on a mat", 2 * 3 / (4 + 4)),
        ("rock'n'roll", "rocknroll", 1.0),
        ("an answer", "theatre", 0.0),  # articles are whole words
        ("", "good", 0.0),
        ("good", "the", 0.0),
        ("", "", 1.0),
        ("!", "the", 1.0),  # both are empty once normalised: SQuAD 2 counts that as agreement
    ],
)
def test_token_f1_as_squad_counts_it(answer: str, reference: str, f1: float) -> None:
    assert token_f1(answer, reference) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("answer", "f1", "f1_box"),
    [
        ("cells <Anatomy>, right eye <Anatomy>", 1.0, 2 * 3 / (5 + 3)),
        ("right eye <Anatomy>", 2 * 3 / (3 + 5), 1.0),
        ("cells", 2 * 1 / (1 + 5), 2 * 1 / (1 + 2)),
    ],
)
def test_box_takes_the_best_piece_of_a_reference(answer: str, f1: float, f1_box: float) -> None:
    """The convention's consequence: naming all scores less than naming one."""
    scores = score_answer(answer, "cells <Anatomy>, right eye <Anatomy>")
    assert scores["f1"] == pytest.approx(100 * f1)
    assert scores["f1_box"] == pytest.approx(100 * f1_box)


def test_box_parts_at_comma_and_blank_only() -> None:
    assert score_answer("1,200", "1,200")["f1_box"] == 100.0


def test_an_empty_answer_is_never_right_by_an_empty_piece() -> None:
    assert score_answer("", "one, the, two") == {"f1": 0.0, "f1_box": 0.0, "rougeL": 0.0}
    assert score_answer("", "one, , two")["f1_box"] == 0.0


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("firms grew quickly", "firms grew quickly", 1.0),
        ("the firms were growing", "the firm grows", 2 * 3 / (4 + 3)),  # stemmed
        ("grew firms", "firms grew", 2 * 1 / (2 + 2)),  # order counts
        ("", "good", 0.0),
    ],
)
def test_rouge_l(answer: str, reference: str, expected: float) -> None:
    assert rouge_l(answer, reference) == pytest.approx(expected)


def test_both_answers_are_judged_by_every_metric() -> None:
    item = judge("i1", "tone", "good", base_text="bad", expert_text="good")
    assert tuple(item.base) == tuple(item.expert) == METRICS
    assert set(item.base.values()) == {0.0}
    assert set(item.expert.values()) == {100.0}


def find(rows: list[Comparison], task: str, metric: str = "f1") -> Comparison:
    [row] = [row for row in rows if (row.task, row.metric) == (task, metric)]
    return row


def test_the_mean_is_the_plain_mean_over_tasks() -> None:
    """However many items a task has (paper App. A)."""
    items = [judged("a", 0, 100), *[judged("b", 50, 50, number=number) for number in range(9)]]
    rows = compare(items, seed=0)
    assert {(row.task, row.metric) for row in rows} == {(t, m) for t in ("a", "b", MEAN) for m in METRICS}
    mean = find(rows, MEAN)
    assert (mean.n, mean.base, mean.expert, mean.difference) == (10, 25.0, 75.0, 50.0)
    assert find(rows, "a") == Comparison("a", "f1", 1, 0.0, 100.0, 100.0, 100.0, 100.0)


def test_a_task_may_be_called_mean() -> None:
    rows = compare([judged("mean", 0, 100), judged("b", 50, 50)], seed=0)
    assert find(rows, MEAN).difference == 50.0
    assert find(rows, "mean (task)").difference == 100.0


@pytest.mark.parametrize(("number", "tasks"), [(20, "a"), (80, "a"), (20, "ab"), (40, "abcd")])
def test_intervals_are_as_wide_as_they_must_be(number: int, tasks: str) -> None:
    """Gains of 5 ± 10, so 1.96 standard errors of their mean to either side; a mean over tasks has so much less."""
    items = [judged(task, 50, 45 + 20 * (index % 2), number=index) for task in tasks for index in range(number)]
    row = find(compare(items, seed=0), MEAN)
    margin = 1.96 * 10 / math.sqrt(number * len(tasks))
    assert row.low == pytest.approx(5 - margin, abs=0.1 * margin)
    assert row.high == pytest.approx(5 + margin, abs=0.1 * margin)


def test_an_interval_is_paired() -> None:
    """Items differ a lot, the gain does not: the interval is that of the gain."""
    items = [judged("a", base, base + 1, number=base) for base in range(0, 90, 3)]
    row = find(compare(items, seed=0), "a")
    assert (row.low, row.high) == (1.0, 1.0)


def test_figures_are_repeatable() -> None:
    items = [judged("a", number, 2 * number % 17, number=number) for number in range(20)]
    assert compare(items, seed=3) == compare(items, seed=3)
    assert find(compare(items, seed=3), "a") != find(compare(items, seed=4), "a")


def test_base_and_expert_are_asked_alike(tmp_path: Path) -> None:
    """The same prompts, limits and stop texts in one batch; the answers say who gave them."""
    write_fake_adapter(tmp_path / "adapter", base_name="fake-base")
    engine = Recorder()
    engine.attach("a1", tmp_path / "adapter")
    items = seeds(ITEMS_PER_WAVE + 3)

    def waves(start: int) -> list[list[tuple[Answer, Answer]]]:
        return list(write_answers(items, adapter="a1", template=ALPACA, recipe=recipe(), start=start, generator=engine))

    whole = waves(0)
    assert [len(wave) for wave in whole] == [ITEMS_PER_WAVE, 3]
    for wave in engine.waves:
        base, expert = wave[: len(wave) // 2], wave[len(wave) // 2 :]
        assert expert == [replace(request, adapter="a1") for request in base]
        assert {(request.adapter, request.temperature, request.stop) for request in base} == {
            (None, 0.0, ("\n\n", "###"))
        }
    assert {(base.generator, expert.generator) for wave in whole for base, expert in wave} == {("base", "a1")}
    assert waves(ITEMS_PER_WAVE) == whole[1:]
