"""A training that is killed and started again ends as if it had not been; and what it tells of memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from app.core.errors import InvalidInput
from app.core.recipe import Recipe
from app.core.records import PLAIN, TrainingPlan, TrainingReport, TrainingRow, TrainingStep
from app.engine.base import LoadedBase
from app.engine.recompute import activation_bytes, recomputes
from app.engine.training import train_adapter
from app.engine.training_rows import TokenRows
from tests.engine.tiny import as_base, make_base, make_model, make_tokenizer

BASE = make_base()  # every training leaves it as it was
RECIPE = Recipe(
    lora_rank=4, batch_size=4, epochs=3, learning_rate=1e-2, max_length=64, lora_dropout=0.1, checkpoint_steps=2
)
ROWS = [
    TrainingRow(f"the answer to question {n} is ", "positive " * (n % 3) + "neutral", is_seed=n < 3) for n in range(9)
]
WEIGHTS = "adapter_model.safetensors"


class Killed(Exception):
    """Stands for a signal."""


def train(
    folder: Path,
    *,
    checkpoints: Path | None = None,
    kill_at: int | None = None,
    rows: list[TrainingRow] = ROWS,
    plan: TrainingPlan = PLAIN,
    base: LoadedBase = BASE,
    **changes: Any,
) -> tuple[list[TrainingStep], TrainingReport]:
    """``kill_at``: the first time that this step is told."""
    steps: list[TrainingStep] = []

    def on_step(step: TrainingStep) -> None:
        if step.step == kill_at:
            raise Killed
        steps.append(step)

    report = train_adapter(
        base,
        rows,
        recipe=RECIPE.model_copy(update=changes),
        folder=folder,
        on_step=on_step,
        plan=plan,
        checkpoints=checkpoints,
    )
    return steps, report


def timeless(steps: list[TrainingStep]) -> list[TrainingStep]:
    return [replace(step, seconds=0.0, memory_bytes=0) for step in steps]


@pytest.mark.parametrize("plan", [PLAIN, TrainingPlan(max_steps=9, seed_share=0.5)], ids=["plain", "share"])
def test_a_killed_training_goes_on_exactly(plan: TrainingPlan, tmp_path: Path) -> None:
    """The same losses and the same bytes, with dropout too, and every step is told once more from the beginning."""
    whole, report = train(tmp_path / "whole", plan=plan)
    assert len(whole) == 9
    for kill_at in (1, 2, 3, 6, 9):
        folder, state = tmp_path / str(kill_at), tmp_path / f"{kill_at}-state"
        with pytest.raises(Killed):
            train(folder, checkpoints=state, kill_at=kill_at, plan=plan)
        torch.manual_seed(99)
        again, report_again = train(folder, checkpoints=state, plan=plan)
        assert timeless(again) == timeless(whole)
        assert (folder / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()
        assert replace(report_again, seconds=0, peak_bytes=0) == replace(report, seconds=0, peak_bytes=0)


def test_it_goes_on_from_the_last_checkpoint_not_from_the_beginning(tmp_path: Path) -> None:
    """Steps that a checkpoint holds are told with the seconds that they took then; time goes on from there."""
    state, first = tmp_path / "state", list[TrainingStep]()

    def stop_at_five(step: TrainingStep) -> None:
        first.append(step)
        if step.step == 5:
            raise Killed

    with pytest.raises(Killed):
        train_adapter(BASE, ROWS, recipe=RECIPE, folder=tmp_path / "a", on_step=stop_at_five, checkpoints=state)
    again, report = train(tmp_path / "a", checkpoints=state)
    assert again[:4] == first[:4]  # with seconds and memory: from the record
    assert again[4].seconds != first[4].seconds
    assert [step.seconds for step in again] == sorted(step.seconds for step in again)
    assert report.seconds == again[-1].seconds


def test_a_training_killed_twice_is_still_exact(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole")
    for kill_at in (4, 8):
        with pytest.raises(Killed):
            train(tmp_path / "killed", checkpoints=tmp_path / "state", kill_at=kill_at)
    assert timeless(train(tmp_path / "killed", checkpoints=tmp_path / "state")[0]) == timeless(whole)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["training.pt"]  # the last only


def test_it_is_exact_in_bfloat16_too(tmp_path: Path) -> None:
    """What was rounded away in the weights that multiply is in the checkpoint."""
    base = as_base(make_model("llama").bfloat16(), make_tokenizer(template="<s> $A"))
    whole, _ = train(tmp_path / "whole", base=base)
    with pytest.raises(Killed):
        train(tmp_path / "killed", base=base, checkpoints=tmp_path / "state", kill_at=6)
    assert timeless(train(tmp_path / "killed", base=base, checkpoints=tmp_path / "state")[0]) == timeless(whole)
    assert (tmp_path / "killed" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_one_that_goes_on_from_an_adapter_is_exact_too(tmp_path: Path) -> None:
    train(tmp_path / "start")
    plan = TrainingPlan(start=str(tmp_path / "start"))
    whole, _ = train(tmp_path / "whole", plan=plan)
    with pytest.raises(Killed):
        train(tmp_path / "killed", plan=plan, checkpoints=tmp_path / "state", kill_at=5)
    assert timeless(train(tmp_path / "killed", plan=plan, checkpoints=tmp_path / "state")[0]) == timeless(whole)
    assert (tmp_path / "killed" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    "other",
    [
        {"rows": ROWS[:-1]},
        {"rows": [*ROWS[:-1], replace(ROWS[-1], weight=2.0)]},
        {"rows": [*ROWS[:-1], replace(ROWS[-1], is_seed=True)]},
        {"learning_rate": 2e-2},
        {"plan": TrainingPlan(max_steps=7)},
    ],
    ids=["rows", "weight", "seeds", "recipe", "plan"],
)
def test_a_checkpoint_of_another_training_is_not_used(other: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path / "one", checkpoints=tmp_path / "state", kill_at=5)
    train(tmp_path / "clean", **other)
    train(tmp_path / "after", checkpoints=tmp_path / "state", **other)
    assert (tmp_path / "after" / WEIGHTS).read_bytes() == (tmp_path / "clean" / WEIGHTS).read_bytes()


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: whole[: len(whole) // 2], lambda whole: b"x" * 99])
def test_a_torn_checkpoint_is_not_used(damage: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole, _ = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "killed", checkpoints=tmp_path / "state", kill_at=5)
    file = tmp_path / "state/training.pt"
    file.write_bytes(damage(file.read_bytes()))
    assert timeless(train(tmp_path / "killed", checkpoints=tmp_path / "state")[0]) == timeless(whole)
    assert "training begins anew" in caplog.text


@pytest.mark.parametrize("family", ["llama", "mpt", "falcon", "gemma3", "gpt2", "opt", "qwen2-moe"])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")
def test_computing_twice_changes_nothing(family: str, tmp_path: Path) -> None:
    """Not even the dropout of LoRA, and no dropout of the base's own."""
    base, losses = make_base(family), []
    for knob in ("off", "on"):
        steps, _ = train(tmp_path / knob, base=base, epochs=1, gradient_checkpointing=knob)
        losses.append([step.loss for step in steps])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert (tmp_path / "on" / WEIGHTS).read_bytes() == (tmp_path / "off" / WEIGHTS).read_bytes()
    assert all("forward" not in vars(module) for module in base.model.modules())


def test_layers_are_computed_twice_only_where_memory_would_not_do() -> None:
    base = BASE
    auto = RECIPE.model_copy(update={"gradient_checkpointing": "auto"})
    assert not recomputes(base, auto, tokens=64, longest=16)
    assert recomputes(base, auto, tokens=10**12, longest=16)
    assert recomputes(base, auto.model_copy(update={"gradient_checkpointing": "on"}), tokens=64, longest=16)
    off = auto.model_copy(update={"gradient_checkpointing": "off"})
    assert not recomputes(base, off, tokens=10**12, longest=16)


def test_what_a_pass_keeps_is_estimated_from_above_and_not_wildly(tmp_path: Path) -> None:
    """Against what autograd really keeps for its way back, on plain attention and with every token a target."""
    base = make_base()
    base.model.set_attn_implementation("eager")
    for parameter in base.model.parameters():
        parameter.requires_grad_(True)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    ids = torch.randint(3, 200, (4, 32))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = base.model(input_ids=ids, labels=ids, use_cache=False).loss
    assert loss.requires_grad
    measured = sum(kept.values())
    assert measured < activation_bytes(base, tokens=ids.numel(), longest=32) < 3 * measured


def test_a_base_whose_layers_cannot_be_computed_twice_says_so() -> None:
    base = replace(BASE, model=torch.nn.Linear(2, 2))
    with pytest.raises(InvalidInput, match=r"recipe\.gradient_checkpointing"):
        recomputes(base, RECIPE.model_copy(update={"gradient_checkpointing": "on"}), tokens=1, longest=1)


def test_steps_and_report_tell_memory(tmp_path: Path) -> None:
    """Bytes of the whole process, in which torch alone takes more than a hundred megabytes."""
    steps, report = train(tmp_path)
    peaks = [step.memory_bytes for step in steps]
    assert peaks == sorted(peaks)
    assert 10**8 < peaks[0] < 10**12
    assert report.peak_bytes == peaks[-1]


def test_rows_are_read_once_and_kept_as_few_bytes() -> None:
    """About four a token and thirty a row; as Python's lists of numbers they would be ten times that."""
    told = 0

    def rows() -> Iterator[TrainingRow]:
        nonlocal told
        for n in range(400):
            told += 1
            yield TrainingRow(f"the answer to question {n} is ", "x" * (n % 80), weight=n, is_seed=n % 2 == 0)

    tracemalloc.start()
    found = TokenRows(BASE, rows(), max_length=64)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 6 * found.num_tokens + 60 * len(found)
    assert (told, len(found) + found.num_dropped) == (400, 400)
    assert 0 < found.num_dropped < 400
    assert found.longest == 64
    assert found.num_tokens == sum(len(found[position].ids) for position in range(len(found)))
    row = found[7]
    assert (row.weight, found.is_seed[7]) == (7.0, False)
    assert BASE.tokenizer.decode(row.ids[: row.num_prompt]) == "<s>the answer to question 7 is "
