"""Scores against values worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.pipeline.scores import METRICS, rouge_l, score_answer, score_item, token_f1
from tests.pipeline.samples import seed


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
def test_box_takes_the_best_piece_of_a_gold_answer(answer: str, f1: float, f1_box: float) -> None:
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


def test_the_best_of_several_gold_answers_counts_for_each_metric() -> None:
    item = replace(seed(output="heart muscle"), references=("heart", "muscle of the heart"))
    assert score_item("heart", item) == dict.fromkeys(METRICS, 100.0)
    assert score_item("muscle of heart", item)["f1"] == 100.0
    assert score_item("heart", seed(output="heart muscle"))["f1"] == pytest.approx(100 * 2 / 3)
