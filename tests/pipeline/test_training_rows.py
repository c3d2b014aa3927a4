"""What the trainer reads of a dataset: each row alone, or behind seeds of its task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.core.records import Example, Origin, TrainingRow
from app.pipeline.template import ALPACA
from app.pipeline.training_rows import seed_example, training_rows
from tests.pipeline.samples import recipe, seed, seeds

SEEDS = seeds(6, "tone", "name")


def made(*rows: Example, **knobs: Any) -> list[TrainingRow]:
    asked = recipe(**knobs)
    shown = map(seed_example, SEEDS)
    return list(training_rows(rows, shown=shown, recipe=asked, count=lambda text: len(text.split())))


def words(row: TrainingRow) -> int:
    return len((row.prompt + row.target).split())


def shown_before(row: TrainingRow) -> int:
    return row.prompt.count("### Response:\n") - 1


def generated(number: int, *, task: str | None = "tone") -> Example:
    row = seed_example(seed(number, task="tone", input=f"Harbour {number} closed its gates"))
    return replace(row, id=f"g{number}", task=task, origin=Origin.GENERATED, weight=0.5)


def test_a_row_is_learned_alone_as_the_paper_has_it() -> None:
    [row] = made(generated(1))
    assert row == TrainingRow(
        ALPACA.render("Is the tone good or bad?", "Harbour 1 closed its gates"), "good", 0.5, False
    )


def test_a_share_of_the_rows_is_learned_behind_seeds_of_their_task() -> None:
    rows = [generated(number) for number in range(400)]
    counts = [shown_before(row) for row in made(*rows, training_shots=3)]
    assert 150 < sum(count > 0 for count in counts) < 250
    assert set(counts) == {0, 1, 2, 3}
    assert not any("name" in row.prompt for row in made(*rows, training_shots=3))
    assert all(
        row.prompt.endswith(alone.prompt) for row, alone in zip(made(*rows, training_shots=3), made(*rows), strict=True)
    )
    assert made(*rows, training_shots=3) == made(*rows, training_shots=3)
    assert made(*rows, training_shots=3) != made(*rows, training_shots=3, seed=1)


def test_what_is_shown_is_a_seed_with_its_answer_and_never_the_row_itself() -> None:
    for item, row in zip(
        SEEDS, made(*map(seed_example, SEEDS), training_shots=5, training_shots_share=1.0), strict=True
    ):
        shown = [each for each in SEEDS if each.input in row.prompt and each.task == item.task and each != item]
        assert shown
        assert all(ALPACA.render(each.instruction, each.input) + each.output in row.prompt for each in shown)
        assert row.prompt.count(item.input) == 1
        assert row.is_seed


def test_fewer_are_shown_where_a_row_would_become_too_long() -> None:
    every: dict[str, Any] = {"training_shots": 5, "training_shots_share": 1.0}
    rows = [generated(number) for number in range(20)]
    for row, alone, most in zip(rows, made(*rows), made(*rows, **every), strict=True):
        [shorter] = made(row, **every, max_length=words(most))  # one word too few: the end of sequence counts, too
        assert shown_before(shorter) == shown_before(most) - 1
        [least] = made(row, **every, max_length=words(alone) + 1)
        assert least == alone


def test_a_row_of_no_task_or_without_other_seeds_is_learned_alone() -> None:
    every: dict[str, Any] = {"training_shots": 5, "training_shots_share": 1.0}
    assert made(generated(1, task=None), **every) == made(generated(1, task=None))
    assert made(generated(1, task="new"), **every) == made(generated(1, task="new"))
