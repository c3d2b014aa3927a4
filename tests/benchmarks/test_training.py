"""The benchmark of training measures the same work on both sides."""

from __future__ import annotations

import pytest

from app.core.recipe import Recipe
from app.core.records import TrainingRow
from app.engine.base import LoadedBase
from app.engine.training import encode_row, response_loss
from benchmarks.pipeline.training import KINDS, Found, measure, read_rows, summary
from tests.engine.tiny import make_base

ROWS = [TrainingRow(f"the answer to question {n} is ", "positive " * (n % 3) + "neutral") for n in range(8)]
RECIPE = Recipe(lora_rank=4, batch_size=8, epochs=1, learning_rate=1e-2, max_length=64, warmup_fraction=0.0)


@pytest.fixture(scope="module", params=KINDS)
def found(request: pytest.FixtureRequest) -> tuple[LoadedBase, Found]:
    base = make_base()
    return base, measure(request.param, base, ROWS, recipe=RECIPE, trainer_rows=4)


def test_both_sides_learn_the_same_tokens_to_the_same_loss(found: tuple[LoadedBase, Found]) -> None:
    """One step over all rows, of which an adapter that is still nothing knows what the base knows."""
    base, one = found
    rows = [encode_row(base, row) for row in ROWS]
    nats = float(response_loss(base, make_base().model, rows))
    assert (one.tokens, one.steps) == (sum(len(row.ids) for row in rows), 1)
    assert one.mean_loss == pytest.approx(nats / sum(row.num_target for row in rows), rel=1e-3)
    assert one.seconds > 0
    assert one.peak_bytes > 10**8


def test_the_ratio_is_of_medians() -> None:
    def one(kind: str, seconds: float) -> Found:
        return Found(kind, "tiny", 600, 1, seconds, 1.0, 10)

    told = summary([one("ours", 1.0), one("trainer", 2.0), one("trainer", 9.0), one("ours", 1.5), one("ours", 1.0)])
    assert (told["ours_tokens_per_second"], told["trainer_tokens_per_second"]) == (600.0, 183.3)
    assert told["ratio"] == 3.27
    assert told["bars"] == {"ratio >= 1.5": True}


def test_the_rows_are_the_bundled_seeds() -> None:
    rows = read_rows()
    assert len(rows) == 90
    assert all("### Instruction:" in row.prompt and row.target for row in rows)
