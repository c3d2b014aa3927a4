"""The whole engine on a GPU: it says there what it says on a processor, learns there, and goes on after a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from app.core.recipe import Recipe
from app.core.records import Completion, GenerationRequest, TrainingRow, TrainingStep
from app.engine.base import BaseOptions, load_base
from app.engine.engine import EngineSizes, TorchEngine
from app.engine.training import train_adapter
from tests.engine.tiny import make_model, write_adapter, write_base

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
OPTIONS = BaseOptions("tiny", "tiny/random", quantization="none", dtype="float32", device="cuda")
SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}  # whole blocks of 64 weights
EXPERTS = ("one", "two", "three")
REQUESTS = [
    GenerationRequest(f"question {n}", adapter=(None, *EXPERTS)[n % 4], max_new_tokens=10 + 3 * n) for n in range(22)
]
RECIPE = Recipe(lora_rank=4, batch_size=4, epochs=6, learning_rate=1e-2, max_length=64, checkpoint_steps=2)
ROWS = [TrainingRow(f"question {n}: ", "positive" if n % 2 else "negative") for n in range(8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"), **SIZES)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    model, root = make_model("llama", **SIZES), tmp_path_factory.mktemp("adapters")
    return {name: write_adapter(model, root / name, seed=rank, r=rank) for rank, name in enumerate(EXPERTS, 2)}


@pytest.fixture
def ask(folder: Path, adapters: dict[str, Path]) -> Callable[..., tuple[list[Completion], int]]:
    """Answers to REQUESTS, and how many steps were replayed."""

    def ask(options: BaseOptions, **sizes: Any) -> tuple[list[Completion], int]:
        engine = TorchEngine(options, lambda: folder, EngineSizes(num_slots=3, max_rank=8, max_batch=16, **sizes))
        try:
            engine.wait_ready(120)
            for name, path in adapters.items():
                engine.attach(name, path)
            engine.generate(REQUESTS[:1])
            return engine.generate(REQUESTS), int(engine.stats()["graph_batches"])
        finally:
            engine.close()

    return ask


def test_it_says_what_a_processor_says(ask: Callable[..., tuple[list[Completion], int]]) -> None:
    """Three experts and the base mixed, rows coming and going, most steps replayed; and none of them replayed."""
    wanted, none = ask(replace(OPTIONS, device="cpu"))
    recorded, some = ask(OPTIONS)
    launched, off = ask(OPTIONS, has_step_graphs=False)
    assert (none, off) == (0, 0)
    assert some > 50
    for request, on_cpu, replayed, plain in zip(REQUESTS, wanted, recorded, launched, strict=True):
        assert replayed.adapter == on_cpu.adapter == request.adapter
        assert replayed.text == on_cpu.text == plain.text


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_experts_answer_replayed_in_every_precision(
    quantization: Any, dtype: Any, ask: Callable[..., tuple[list[Completion], int]], caplog: pytest.LogCaptureFixture
) -> None:
    """The engine itself compares each graph with the step that it was recorded from, and warns where they differ."""
    answers, replayed = ask(replace(OPTIONS, quantization=quantization, dtype=dtype))
    assert replayed > 50
    assert not [each for each in caplog.records if "CUDA graphs" in each.message or "kernels" in each.message]
    assert [each.adapter for each in answers] == [request.adapter for request in REQUESTS]


class Killed(Exception):
    """Stands for a signal."""


def train(folder: Path, base_folder: Path, *, state: Path | None = None, kill_at: int = -1) -> list[TrainingStep]:
    base = load_base(replace(OPTIONS, quantization="nf4", dtype="bfloat16"), base_folder)
    steps: list[TrainingStep] = []

    def on_step(step: TrainingStep) -> None:
        if step.step == kill_at:
            raise Killed
        steps.append(step)

    train_adapter(base, ROWS, recipe=RECIPE, folder=folder, on_step=on_step, checkpoints=state)
    return steps


def test_a_killed_training_on_four_bits_goes_on_exactly(folder: Path, tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", folder)
    assert whole[-1].loss < 0.8 * whole[0].loss
    state = tmp_path / "state"
    with pytest.raises(Killed):
        train(tmp_path / "killed", folder, state=state, kill_at=7)
    again = train(tmp_path / "again", folder, state=state)
    assert [step.loss for step in again] == [step.loss for step in whole]
    name = "adapter_model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_was_learned_on_the_gpu_is_served_there(folder: Path, tmp_path: Path) -> None:
    """Replayed before the training, trained, and replayed after it: the base's weights stay where graphs read them."""
    options = replace(OPTIONS, quantization="nf4")  # float32: no tokens change place with the batch's size
    engine = TorchEngine(options, lambda: folder, EngineSizes(num_slots=2, max_rank=8, max_batch=4))
    try:
        requests = [GenerationRequest(f"question {n}: ", max_new_tokens=30) for n in range(4)]
        before = [answer.text for answer in engine.generate(requests)]
        steps: list[TrainingStep] = []
        engine.train(ROWS, recipe=RECIPE, folder=tmp_path / "learned", on_step=steps.append)
        assert steps[-1].loss < 0.8 * steps[0].loss
        assert engine.attach("learned", tmp_path / "learned").probe_distance > 0
        mixed = engine.generate([*requests, *[replace(request, adapter="learned") for request in requests]])
        assert [answer.text for answer in mixed[:4]] == before
        assert [answer.text for answer in mixed[4:]] != before
        assert engine.stats()["graph_batches"] > 20
    finally:
        engine.close()
