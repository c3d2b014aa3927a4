"""The 4-bit base on a processor: adapters learned on it act on it, and its fingerprint is its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit

from app.core.errors import AdapterRefused
from app.core.recipe import Recipe
from app.core.records import GenerationRequest, TrainingRow, TrainingStep
from app.engine.adapter_files import read_adapter
from app.engine.base import BaseOptions, load_base
from app.engine.engine import EngineSizes, TorchEngine
from app.engine.forward import Forward
from app.engine.slots import linear_layers
from app.engine.training import train_adapter
from tests.engine.tiny import FAMILIES, make_bank, make_model, peft_logits, write_adapter, write_base

OPTIONS = BaseOptions(name="tiny", hub_id="tiny/random", quantization="nf4", dtype="float32", device="cpu")
RECIPE = Recipe(lora_rank=4, batch_size=4, epochs=6, learning_rate=1e-2, max_length=64, warmup_fraction=0.0)
SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}  # whole blocks of 64 weights
ROWS = [TrainingRow(f"question {n}: ", "positive" if n % 2 else "negative") for n in range(8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"), **SIZES)


def test_every_linear_layer_is_four_bits_wide(folder: Path) -> None:
    base = load_base(OPTIONS, folder)
    layers = linear_layers(base.model)
    assert set(layers) == set(linear_layers(make_model("llama", **SIZES)))
    assert all(isinstance(layer, Linear4bit) for layer in layers.values())
    assert {getattr(layer.weight, "quant_type", None) for layer in layers.values()} == {"nf4"}
    plain = load_base(replace(OPTIONS, quantization="none"), folder)
    assert (base.info.quantization, plain.info.quantization) == ("nf4", "none")
    assert base.info.fingerprint != plain.info.fingerprint


def test_an_adapter_is_learned_attached_and_answers(folder: Path, tmp_path: Path) -> None:
    engine = TorchEngine(OPTIONS, lambda: folder, EngineSizes(num_slots=2, max_rank=8, max_batch=4))
    steps: list[TrainingStep] = []
    engine.train(ROWS, recipe=RECIPE, folder=tmp_path / "learned", on_step=steps.append)
    assert steps[-1].loss < 0.8 * steps[0].loss

    engine.attach("learned", tmp_path / "learned")
    engine.attach("random", write_adapter(make_model("llama", **SIZES), tmp_path / "random"))
    requests = [
        GenerationRequest("the firm", adapter=name, max_new_tokens=12) for name in (None, "learned", "random", None)
    ]
    answers = engine.generate(requests)
    assert [answer.adapter for answer in answers] == [None, "learned", "random", None]
    assert answers[0].text == answers[3].text
    assert len({answer.text for answer in answers}) == 3
    engine.close()

    sizes = EngineSizes(num_slots=1, max_rank=8, max_batch=1)
    plain = TorchEngine(replace(OPTIONS, quantization="none"), lambda: folder, sizes)
    with pytest.raises(AdapterRefused, match="fingerprint"):
        plain.attach("learned", tmp_path / "learned")
    plain.close()


def test_learning_after_answering_is_learning(folder: Path, tmp_path: Path) -> None:
    """A bug: on processors with AVX-512 BF16, bitsandbytes repacks a layer at its first answer, for answers only.

    A job, which answers before it trains, then learned nothing, or failed.
    """
    losses = []
    for name, num_questions in (("before", 0), ("after", 2)):
        engine = TorchEngine(OPTIONS, lambda: folder, EngineSizes(num_slots=1, max_rank=8, max_batch=4))
        steps: list[TrainingStep] = []
        engine.generate([GenerationRequest("the firm", max_new_tokens=4)] * num_questions)
        engine.train(ROWS, recipe=RECIPE, folder=tmp_path / name, on_step=steps.append)
        losses.append([step.loss for step in steps])
        engine.close()
    assert losses[0] == losses[1]


def test_bases_of_any_size_can_be_quantized(tmp_path: Path) -> None:
    """A bug: the same repacking failed where rows are no whole blocks of 64 weights."""
    engine = TorchEngine(OPTIONS, lambda: write_base(tmp_path), EngineSizes(num_slots=1, max_rank=8, max_batch=4))
    assert engine.generate([GenerationRequest("the firm", max_new_tokens=4)])[0].completion_tokens > 0
    engine.close()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # PEFT, of Conv1D layers
def test_a_slot_computes_what_peft_computes_on_four_bits(family: str, tmp_path: Path) -> None:
    folder = write_base(tmp_path / "base", family)
    base = load_base(OPTIONS, folder)
    recipe = RECIPE.model_copy(update={"epochs": 2})
    train_adapter(base, ROWS, recipe=recipe, folder=tmp_path / "learned", on_step=lambda step: None)
    prompt = base.encode("the firm rose")
    wanted = [peft_logits(base.model, adapter, prompt) for adapter in (None, tmp_path / "learned")]

    bank = make_bank(base)
    bank.write(2, read_adapter(tmp_path / "learned").pairs)
    decoder = Forward(base, bank.segments)
    ours = [decoder.log_probabilities(prompt, slot) for slot in (0, 2)]
    for mine, logits in zip(ours, wanted, strict=True):
        torch.testing.assert_close(mine, torch.log_softmax(logits, dim=-1), atol=1e-4, rtol=0)
    assert not torch.allclose(ours[0], ours[1], atol=1e-3)
