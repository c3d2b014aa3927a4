"""The training set: every seed, and nothing generated that asks the same again."""

from __future__ import annotations

from dataclasses import replace

from app.core.records import Example, Origin, Seed, TrainingRow
from app.pipeline.dataset import assemble_dataset, seed_example, training_rows
from app.pipeline.template import ALPACA
from tests.pipeline.samples import seed, seeds


def example(number: int, *, output: str = "fine") -> Example:
    return replace(
        seed_example(seed(number)), id=f"e{number}", output=output, origin=Origin.GENERATED, generator="base"
    )


def test_seeds_come_first_and_are_their_own_origin() -> None:
    dataset = assemble_dataset(seeds(2), [example(7), example(8)])
    assert [(row.origin.value, row.generator) for row in dataset] == [("seed", "user")] * 2 + [
        ("generated", "base")
    ] * 2
    assert [row.seed_ids for row in dataset[:2]] == [(item.id,) for item in seeds(2)]


def test_a_question_that_was_asked_keeps_its_first_answer() -> None:
    dataset = assemble_dataset(seeds(2), [example(1, output="other"), example(7), example(7, output="other")])
    assert [(row.id, row.output) for row in dataset[2:]] == [("e7", "fine")]


def test_no_seed_is_left_out() -> None:
    """Two seeds that ask the same and answer differently are both the user's: the second was dropped silently."""
    twins = [Seed("t", "i", "x", "one"), Seed("t", "i", "x", "two")]
    assert [row.output for row in assemble_dataset(twins, [])] == ["one", "two"]


def test_rows_are_rendered_as_the_expert_is_asked() -> None:
    assert training_rows([seed_example(Seed("t", "Do {input}.", "{instruction}", "out"))], ALPACA) == [
        TrainingRow(ALPACA.render("Do {input}.", "{instruction}"), "out")
    ]
