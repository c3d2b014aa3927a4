"""Steps that are recorded and replayed: here a recorder that computes anew each time, so that all but CUDA is tried."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from app.engine.step_graphs import padded
from tests.engine.batches import Batch
from tests.engine.tiny import FAMILIES, make_base

PROMPTS = [[1, 40, 41, 42], [1, *range(60, 80)], [1, 90], [1, *range(100, 111)], [1, 7, 7, 7, 7, 7, 7]]
BUDGETS = [40, 24, 7, 30, 60]


class Recorder:
    """Counts what is recorded and replayed."""

    def __init__(self) -> None:
        self.num_recorded = self.num_replayed = 0

    def __call__(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.num_recorded += 1

        def replay() -> Tensor:
            self.num_replayed += 1
            return compute()

        return replay


def answers(batch: Batch) -> list[list[int]]:
    sequences = [batch.ask(prompt, max_new_tokens=budget) for prompt, budget in zip(PROMPTS, BUDGETS, strict=True)]
    batch.run()
    return [sequence.token_ids for sequence in sequences]


@pytest.mark.parametrize("family", FAMILIES)
def test_replayed_steps_say_what_computed_ones_say(family: str) -> None:
    """Rows join, end and leave at different times, so batches of several sizes are recorded, padded ones among them."""
    record = Recorder()
    recorded = answers(Batch(make_base(family), record=record))
    assert recorded == answers(Batch(make_base(family)))
    assert record.num_recorded > 1
    assert record.num_replayed > 20


def test_storage_that_grew_is_recorded_anew() -> None:
    """Thirty-two rows after four: what was recorded with the old storage would write where nobody reads."""
    base, record = make_base(), Recorder()
    batch, plain = Batch(base, max_batch=32, record=record), Batch(make_base(), max_batch=32)
    few = [each.say(PROMPTS[0], max_new_tokens=20).token_ids for each in (batch, plain)]
    assert few[0] == few[1]
    before = record.num_recorded
    many = [
        [each.ask([1, number, 50 + number], max_new_tokens=20) for number in range(3, 33)] for each in (batch, plain)
    ]
    batch.run()
    plain.run()
    assert [one.token_ids for one in many[0]] == [one.token_ids for one in many[1]]
    assert record.num_recorded > before
    again = batch.say(PROMPTS[0], max_new_tokens=20).token_ids
    assert again == few[0]


@pytest.mark.parametrize("kind", ["raises", "errs"])
def test_what_cannot_be_recorded_is_computed(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    def record(compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        if kind == "raises":
            raise RuntimeError("operation not permitted when stream is capturing")
        return lambda: compute() + torch.eye(compute().shape[1])[5] * 9

    with caplog.at_level(logging.WARNING):
        said = answers(Batch(make_base(), record=record))
    assert said == answers(Batch(make_base()))
    assert len([each for each in caplog.records if "CUDA graphs" in each.message]) == 1


def test_sizes_are_few_and_waste_little() -> None:
    assert sorted({padded(rows) for rows in range(1, 513)}) == [
        1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512
    ]  # fmt: skip
    assert all(rows <= padded(rows) < 1.5 * rows or padded(rows) <= 8 for rows in range(1, 513))
