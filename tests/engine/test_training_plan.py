"""How one training differs from the plain one: its steps, its beginning, the share of seeds, the weight of rows."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from app.core.errors import AdapterRefused, InvalidInput
from app.core.recipe import Recipe
from app.core.records import TrainingPlan, TrainingRow, TrainingStep
from app.engine.training import encode_row, rate_factor, response_loss, train_adapter
from app.engine.training_batches import BatchOrder, micro_batches
from tests.engine.tiny import make_base, write_adapter

RECIPE = Recipe(lora_rank=4, batch_size=4, epochs=2, learning_rate=1e-2, max_length=64, warmup_fraction=0.0)
BASE = make_base()  # every training leaves it as it was
ROWS = [TrainingRow(f"the answer to question {n} is ", "positive" if n % 2 else "neutral") for n in range(9)]


def train(
    folder: Path,
    plan: TrainingPlan,
    *,
    rows: list[TrainingRow] = ROWS,
    **changes: Any,
) -> list[TrainingStep]:
    steps: list[TrainingStep] = []
    recipe = RECIPE.model_copy(update=changes)
    train_adapter(BASE, rows, recipe=recipe, folder=folder, on_step=steps.append, plan=plan)
    return steps


def order(num_seeds: int, num_generated: int, share: float | None, *, size: int = 8, seed: int = 0) -> BatchOrder:
    """Seeds have the first positions."""
    return BatchOrder([True] * num_seeds + [False] * num_generated, batch_size=size, seed_share=share, seed=seed)


def test_exactly_so_many_steps(tmp_path: Path) -> None:
    """More than the epochs would take, and the schedule spans them; the rows are shuffled anew for every epoch."""
    steps = train(tmp_path, TrainingPlan(max_steps=10))
    assert [step.step for step in steps] == list(range(1, 11))
    assert {step.num_steps for step in steps} == {10}
    assert [step.epoch for step in steps] == pytest.approx([step / 3 for step in range(1, 11)])
    assert [step.learning_rate for step in steps] == pytest.approx(
        [1e-2 * rate_factor(RECIPE, n, 10) for n in range(10)]
    )
    assert len(train(tmp_path, TrainingPlan(max_steps=1))) == 1


def test_an_epoch_is_every_row_once_and_every_epoch_another_order() -> None:
    epochs = [list(islice(order(5, 4, None, size=4).batches(), n * 3, n * 3 + 3)) for n in range(3)]
    assert [[len(batch) for batch in epoch] for epoch in epochs] == [[4, 4, 1]] * 3
    orders = [tuple(row for batch in epoch for row in batch) for epoch in epochs]
    assert all(sorted(each) == list(range(9)) for each in orders)
    assert len(set(orders)) == 3
    assert next(order(5, 4, None, seed=1).batches()) != next(order(5, 4, None).batches())


@pytest.mark.parametrize(
    ("share", "seeds", "steps"), [(0.5, {4}, 25), (0.25, {2}, 17), (0.3, {2, 3}, 18), (0.9, {7, 8}, 124)]
)
def test_every_batch_has_its_share_of_seeds(share: float, seeds: set[int], steps: int) -> None:
    """Generated rows once an epoch each; seeds in rounds: none is seen twice more than another."""
    found = order(10, 100, share)
    assert found.steps_an_epoch == steps
    batches = list(islice(found.batches(), 2 * steps))
    for epoch in (batches[:steps], batches[steps:]):
        assert {sum(row < 10 for row in batch) for batch in epoch[:-1]} <= seeds
        assert sorted(row for batch in epoch for row in batch if row >= 10) == list(range(10, 110))
        assert all(len(batch) == 8 for batch in epoch[:-1])
        assert epoch[-1]
    seen = Counter(row for batch in batches for row in batch if row < 10)
    assert max(seen.values()) - min(seen[row] for row in range(10)) <= 1


def test_a_share_that_is_no_binary_fraction_is_kept_exactly() -> None:
    assert {sum(row < 5 for row in batch) for batch in islice(order(5, 710, 0.29, size=100).batches(), 9)} == {29}


def test_few_generated_rows_leave_no_seed_out() -> None:
    """A bug: 11 generated rows ended an epoch before half of the 25 seeds were seen, and weighed more than those."""
    found = order(25, 11, 0.375)
    for _ in range(2):
        rows = [row for batch in islice(found.batches(), found.steps_an_epoch) for row in batch]
        assert sorted(rows) == list(range(36))


@pytest.mark.parametrize(
    ("num_seeds", "num_generated", "share", "wanted"),
    [(9, 0, 0.5, range(9)), (0, 9, 0.5, range(9)), (4, 5, 0.0, range(4, 9)), (4, 5, 1.0, range(4))],
)
def test_where_one_kind_is_left_an_epoch_is_each_of_it_once(
    num_seeds: int, num_generated: int, share: float, wanted: range
) -> None:
    found = order(num_seeds, num_generated, share)
    batches = islice(found.batches(), found.steps_an_epoch)
    assert sorted(row for batch in batches for row in batch) == list(wanted)


def test_training_follows_the_share(tmp_path: Path) -> None:
    """Half of every batch is the one seed, so six generated rows in batches of four take three steps an epoch."""
    rows = [TrainingRow("the seed ", "rose"), *(TrainingRow(f"made {n} ", "fell", is_seed=False) for n in range(6))]
    assert len(train(tmp_path, TrainingPlan(seed_share=0.5), rows=rows)) == 2 * 3
    assert len(train(tmp_path, TrainingPlan(), rows=rows)) == 2 * 2


def test_weights_multiply_the_loss_of_their_rows(tmp_path: Path) -> None:
    """The first loss is the weighted mean of the rows' own; weights that are all alike change nothing."""
    weights = [0.0, 0.5, 1.0, 3.0]
    rows = [TrainingRow(row.prompt, row.target, weight) for row, weight in zip(ROWS, weights, strict=False)]
    nats = [float(response_loss(BASE, BASE.model, [encode_row(BASE, row)])) for row in ROWS[:4]]
    counts = [encode_row(BASE, row).num_target * row.weight for row in rows]
    wanted = sum(weight * each for weight, each in zip(weights, nats, strict=True)) / sum(counts)
    assert train(tmp_path, TrainingPlan(), rows=rows)[0].loss == pytest.approx(wanted, rel=1e-5)
    plain, halved = (
        train(tmp_path, TrainingPlan(), rows=[TrainingRow(row.prompt, row.target, weight) for row in ROWS])
        for weight in (1.0, 0.5)
    )
    assert [step.loss for step in plain] == pytest.approx([step.loss for step in halved], rel=1e-4)


def test_a_row_without_weight_teaches_nothing(tmp_path: Path) -> None:
    rows = [TrainingRow("the firm ", "rose"), TrainingRow("the firm ", "sank and sank", 0.0)]
    train(tmp_path / "with", TrainingPlan(), rows=rows, batch_size=1)
    silent = train(tmp_path / "silent", TrainingPlan(), rows=rows[1:])
    assert [step.loss for step in silent] == [0.0, 0.0]
    assert not load_file(tmp_path / "silent/adapter_model.safetensors")[_some_b(tmp_path / "silent")].any()
    assert load_file(tmp_path / "with/adapter_model.safetensors")[_some_b(tmp_path / "with")].any()


def _some_b(folder: Path) -> str:
    return next(name for name in load_file(folder / "adapter_model.safetensors") if "lora_B" in name)


def test_training_goes_on_from_an_adapter(tmp_path: Path) -> None:
    """Its first loss is the adapter's, not the base's, and what it learns is another adapter."""
    first = train(tmp_path / "first", TrainingPlan(), batch_size=9)
    on = train(tmp_path / "on", TrainingPlan(start=str(tmp_path / "first")), batch_size=9)
    assert on[0].loss < first[-1].loss < first[0].loss
    before, after = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("first", "on"))
    assert before.keys() == after.keys()
    assert not any(torch.equal(before[name], after[name]) for name in before)
    barely = TrainingPlan(start=str(tmp_path / "first"), max_steps=1)
    tiny = train(tmp_path / "tiny", barely, batch_size=9, learning_rate=1e-12)
    assert tiny[0].loss == pytest.approx(on[0].loss, rel=1e-5)
    begun = load_file(tmp_path / "tiny/adapter_model.safetensors")
    assert all(torch.allclose(before[name], begun[name], atol=1e-9) for name in before)


def test_another_rank_and_alpha_are_refused_by_name(tmp_path: Path) -> None:
    start = write_adapter(BASE.model, tmp_path / "start", r=2, lora_alpha=8)
    with pytest.raises(InvalidInput) as refusal:
        train(tmp_path / "on", TrainingPlan(start=str(start)))
    assert [problem.field for problem in refusal.value.problems] == ["recipe.lora_rank", "recipe.lora_alpha"]
    assert "set it to 2" in refusal.value.problems[0].reason
    assert not (tmp_path / "on").exists()


def test_an_adapter_of_another_base_or_other_layers_is_refused(tmp_path: Path) -> None:
    same = {"r": RECIPE.lora_rank, "lora_alpha": RECIPE.lora_alpha}
    some = write_adapter(BASE.model, tmp_path / "some", target_modules=["q_proj"], **same)
    with pytest.raises(AdapterRefused, match="other layers"):
        train(tmp_path / "on", TrainingPlan(start=str(some)))
    (some / "selfspec.json").write_text(json.dumps({"base_fingerprint": "fedcba9876543210"}))
    with pytest.raises(AdapterRefused, match="another base"):
        train(tmp_path / "on", TrainingPlan(start=str(some)))
    assert not any("lora" in name for name, _ in BASE.model.named_modules())


def test_rows_of_like_length_pass_together() -> None:
    lengths = [100, 9, 10, 98, 11, 99]
    groups = micro_batches(lengths, max_tokens=1000, pass_tokens=20)
    assert [sorted(group) for group in groups] == [[1, 2, 4], [0, 3, 5]]
    assert len(micro_batches(lengths, max_tokens=1000, pass_tokens=10_000)) == 1  # a dear pass is worth the padding


@pytest.mark.parametrize("max_tokens", [1, 64, 200, 300])
def test_a_pass_keeps_to_its_tokens(max_tokens: int) -> None:
    """One row at least, whatever its length."""
    lengths = [100, 9, 10, 98, 11, 99, 7]
    groups = micro_batches(lengths, max_tokens=max_tokens, pass_tokens=50)
    assert sorted(row for group in groups for row in group) == list(range(7))
    assert all(len(group) * max(lengths[row] for row in group) <= max_tokens or len(group) == 1 for group in groups)
