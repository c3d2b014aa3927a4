"""What a training step computes: rows, loss, learning rate, precision; families are in ``test_families``."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from app.core.errors import Fault, InvalidInput, StageFailed
from app.core.recipe import Recipe
from app.core.records import TrainingReport, TrainingRow, TrainingStep
from app.engine.adapter_files import ORIGIN_FILE
from app.engine.base import LoadedBase
from app.engine.training import MasterWeights, encode_row, rate_factor, response_loss, train_adapter
from tests.engine.tiny import BOS, EOS, FAMILIES, make_base, make_tokenizer

RECIPE = Recipe(lora_rank=4, batch_size=4, epochs=2, learning_rate=1e-2, max_length=64, warmup_fraction=0.0)
ROWS = [
    TrainingRow(f"the answer to question {n} is ", "positive " * (n % 3) + ("negative" if n % 2 else "neutral"))
    for n in range(9)
]


def train(base: LoadedBase, folder: Path, rows: list[TrainingRow] = ROWS, **changes: Any) -> list[TrainingStep]:
    steps: list[TrainingStep] = []
    recipe = RECIPE.model_copy(update=changes)
    train_adapter(base, rows, recipe=recipe, folder=folder, on_step=steps.append)
    return steps


def loss_alone(model: Any, base: LoadedBase, row: TrainingRow) -> tuple[float, int]:
    """transformers' own loss of one row, without padding, over all logits: nats, and how many tokens they cover."""
    encoded = encode_row(base, row)
    ids = torch.tensor([encoded.ids])
    labels = ids.clone()
    labels[0, : encoded.num_prompt] = -100
    with torch.no_grad():
        mean = float(model(input_ids=ids, labels=labels, use_cache=False).loss)
    return mean * encoded.num_target, encoded.num_target


def test_a_row_is_prompt_target_and_end() -> None:
    base = make_base("llama")
    row = encode_row(base, TrainingRow("the firm ", "rose"))
    text = make_tokenizer()
    assert row.ids == [BOS, *text("the firm ")["input_ids"], *text("rose")["input_ids"], EOS]
    assert row.ids[row.num_prompt :] == [*text("rose")["input_ids"], EOS]
    assert row.num_target == len(text("rose")["input_ids"]) + 1


def test_an_empty_target_is_learned_as_the_end() -> None:
    row = encode_row(make_base("llama"), TrainingRow("x", ""))
    assert (row.ids[-1], row.num_target) == (EOS, 1)


@pytest.mark.parametrize("template", [None, "<s> $A", "<s> $A </s>"])
def test_one_end_only_whatever_the_tokenizer_adds(template: str | None) -> None:
    """A bug: a tokenizer that appends the end put one between prompt and target."""
    assert encode_row(make_base("llama", template=template), ROWS[0]).ids.count(EOS) == 1


def test_an_unreadable_row_is_told() -> None:
    with pytest.raises(InvalidInput, match="Unicode"):
        encode_row(make_base("llama"), TrainingRow("x", "half \ud83d"))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")
def test_the_first_loss_is_the_bases_own(family: str, tmp_path: Path) -> None:
    """An adapter starts as nothing, so the first step's loss is what transformers computes row by row, unpadded.

    A bug: bases with dropout of their own (GPT-2, OPT) trained with it, which no recipe says.
    """
    base = make_base(family)
    losses = [loss_alone(base.model, base, row) for row in ROWS]
    wanted = sum(loss for loss, _ in losses) / sum(count for _, count in losses)
    for micro_batch_tokens in (64, 4096):
        steps = train(base, tmp_path, batch_size=len(ROWS), epochs=1, micro_batch_tokens=micro_batch_tokens)
        assert steps[0].loss == pytest.approx(wanted, rel=1e-4)


def test_the_loss_counts_target_tokens_only() -> None:
    base = make_base("llama")
    row = encode_row(base, TrainingRow("the firm ", "rose"))
    other_prompt = replace(row, ids=[BOS, *([9] * (row.num_prompt - 1)), *row.ids[row.num_prompt :]])
    assert float(response_loss(base, base.model, [row])) != float(response_loss(base, base.model, [other_prompt]))
    one, two = (float(response_loss(base, base.model, [each])) for each in (row, other_prompt))
    assert float(response_loss(base, base.model, [row, other_prompt])) == pytest.approx(one + two, rel=1e-5)


def test_gradients_are_those_of_a_plain_mean_over_target_tokens() -> None:
    """Micro-batches of unequal size and padding change nothing."""
    base = make_base("llama")
    model = get_peft_model(copy.deepcopy(base.model), LoraConfig(target_modules="all-linear", init_lora_weights=False))
    rows = [encode_row(base, row) for row in ROWS[:4]]
    num_targets = sum(row.num_target for row in rows)
    for micro in (rows[:1], rows[1:]):
        torch.autograd.backward(response_loss(base, model, micro) / num_targets)
    ours = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    model.zero_grad(set_to_none=True)
    for row in ROWS[:4]:
        encoded = encode_row(base, row)
        ids = torch.tensor([encoded.ids])
        labels = ids.masked_fill(torch.arange(ids.shape[1]) < encoded.num_prompt, -100)
        (model(input_ids=ids, labels=labels).loss * encoded.num_target / num_targets).backward()
    theirs = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    for mine, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=1e-3)


def test_training_repeats_and_leaves_the_base_alone(tmp_path: Path) -> None:
    base = make_base("llama")
    names = [name for name, _ in base.model.named_modules()]
    before = copy.deepcopy(base.model.state_dict())
    implementation = base.model.config._attn_implementation
    losses = [[step.loss for step in train(base, tmp_path / name, lora_dropout=0.1)] for name in "ab"]
    assert losses[0] == losses[1]
    assert (tmp_path / "a/adapter_model.safetensors").read_bytes() == (
        tmp_path / "b/adapter_model.safetensors"
    ).read_bytes()
    assert [name for name, _ in base.model.named_modules()] == names
    assert base.model.config._attn_implementation == implementation
    assert not base.model.training
    for name, after in base.model.state_dict().items():
        assert torch.equal(before[name], after), name


def test_the_recipes_dropout_drops(tmp_path: Path) -> None:
    without, with_it = ([step.loss for step in train(make_base(), tmp_path, lora_dropout=p)] for p in (0.0, 0.5))
    assert without[0] == with_it[0]  # an adapter starts as nothing
    assert without[1:] != with_it[1:]


def test_a_training_that_fails_leaves_the_base_alone(tmp_path: Path) -> None:
    base = make_base("llama")
    names = [name for name, _ in base.model.named_modules()]

    def stop(step: TrainingStep) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_adapter(base, ROWS, recipe=RECIPE, folder=tmp_path, on_step=stop)
    assert [name for name, _ in base.model.named_modules()] == names
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_the_report_and_the_steps_add_up(tmp_path: Path) -> None:
    base = make_base("llama")
    steps: list[TrainingStep] = []
    long = TrainingRow("very " * 64, "long")
    report: TrainingReport = train_adapter(base, [*ROWS, long], recipe=RECIPE, folder=tmp_path, on_step=steps.append)
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]
    assert [step.epoch for step in steps] == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    assert (report.num_steps, report.num_rows, report.num_dropped, report.num_modules) == (6, 9, 1, 14)
    assert (report.first_loss, report.last_loss) == (steps[0].loss, steps[-1].loss)
    assert report.tokens == steps[-1].tokens == 2 * sum(len(encode_row(base, row).ids) for row in ROWS)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    assert report.num_parameters == sum(tensor.numel() for tensor in weights.values())
    assert json.loads((tmp_path / ORIGIN_FILE).read_text())["base_fingerprint"] == base.info.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        ORIGIN_FILE,
    ]


def test_no_row_that_fits_is_the_users_fault(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="max_length") as failure:
        train(make_base("llama"), tmp_path, [TrainingRow("x" * 99, "y")])
    assert (failure.value.fault, failure.value.param) == (Fault.USER, "recipe.max_length")


def test_small_steps_are_not_lost_in_bfloat16() -> None:
    parameter = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    masters = MasterWeights([parameter])
    optimizer = torch.optim.SGD(masters.weights, lr=1e-3)
    for _ in range(10):
        parameter.grad = torch.ones_like(parameter)
        masters.take_gradients()
        assert [weight.grad for weight in (parameter,)] == [None]
        optimizer.step()
        masters.give_weights()
    assert torch.allclose(masters.weights[0], torch.full((4,), 0.99))
    assert parameter.dtype == torch.bfloat16
    assert torch.equal(parameter.detach(), torch.full((4,), 0.99).bfloat16())


def test_a_parameter_without_gradient_stays() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    masters = MasterWeights([parameter])
    masters.take_gradients()
    assert [weight.grad for weight in masters.weights] == [None]


def test_the_rate_rises_first() -> None:
    recipe = Recipe(warmup_fraction=0.1, schedule="constant")
    assert [rate_factor(recipe, step, 100) for step in range(11)] == pytest.approx(
        [*((step + 1) / 11 for step in range(10)), 1.0]
    )


@pytest.mark.parametrize(
    ("schedule", "half", "late"),
    [("constant", 1.0, 1.0), ("linear", 0.5, 0.25), ("cosine", 0.5, 0.5 - math.sqrt(0.125))],
)
def test_then_it_follows_its_schedule(schedule: str, half: float, late: float) -> None:
    recipe = Recipe(warmup_fraction=0.0, schedule=schedule)
    factors = [rate_factor(recipe, step, 100) for step in range(100)]
    assert [factors[0], factors[50], factors[75]] == pytest.approx([1.0, half, late])
    assert all(0 < factor <= 1 for factor in factors)


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_the_shortest_jobs_learn_at_every_step(num_steps: int) -> None:
    assert all(rate_factor(Recipe(), step, num_steps) > 0 for step in range(num_steps))


def test_the_steps_use_that_rate(tmp_path: Path) -> None:
    steps = train(make_base("llama"), tmp_path, warmup_fraction=0.2, schedule="linear")
    recipe = RECIPE.model_copy(update={"warmup_fraction": 0.2, "schedule": "linear"})
    assert [step.learning_rate for step in steps] == pytest.approx([1e-2 * rate_factor(recipe, n, 6) for n in range(6)])
