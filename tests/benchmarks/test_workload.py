"""Prompts of a known length, new ones each time, for the experts that a point asks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.serving.adapters import write_adapters
from benchmarks.serving.workload import Point, Sizes, Words, make_workload

SIZES = Sizes(requests=8, prompt_tokens=20, new_tokens=5)


def test_prompts_are_exactly_as_long_as_asked_for(words: Words) -> None:
    chance = random.Random(0)
    assert [words.count(words.prompt(length, chance=chance)) for length in (1, 16, 256)] == [1, 16, 256]


def test_the_same_seed_asks_the_same_and_another_shares_no_prompt(words: Words) -> None:
    first, again, other = (
        make_workload(Point("mixed", 4), words=words, sizes=SIZES, seed=seed) for seed in ("a", "a", "b")
    )
    assert first == again
    assert not {request.prompt for request in first.requests} & {request.prompt for request in other.requests}


@pytest.mark.parametrize(("mix", "models"), [("base", 1), ("one", 1), ("mixed", 4), ("many", 8)])
def test_experts_are_asked_in_turn(words: Words, mix: str, models: int) -> None:
    workload = make_workload(Point(mix, 4), words=words, sizes=SIZES, seed="a")
    assert len({request.model for request in workload.requests[:models]}) == models
    assert {request.max_tokens for request in workload.requests} == {5}


def test_drawn_lengths_stay_in_their_range_and_differ(words: Words) -> None:
    workload = make_workload(Point("mixed", 4, drawn=True), words=words, sizes=Sizes(requests=50), seed="a")
    for lengths in (
        {words.count(request.prompt) for request in workload.requests},
        {request.max_tokens for request in workload.requests},
    ):
        assert len(lengths) > 10
        assert min(lengths) >= 16
        assert max(lengths) <= 256


def test_adapters_are_peft_folders_that_act_each_in_its_own_way(tmp_path: Path) -> None:
    """PEFT's own start leaves B at zero: such an adapter would cost as much and show no mistake."""
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    model = LlamaForCausalLM(config)
    save_file({name: value.numpy() for name, value in model.state_dict().items()}, tmp_path / "model.safetensors")
    folders = write_adapters(("d0", "d1"), tmp_path / "adapters", model=tmp_path, base="a/base")
    tokens = torch.arange(8)[None]
    with torch.inference_mode():
        plain = model(tokens).logits
        expert = PeftModel.from_pretrained(model, folders["d0"], adapter_name="d0")
        expert.load_adapter(folders["d1"], adapter_name="d1")
        answers = [plain]
        for name in ("d0", "d1"):
            expert.set_adapter(name)
            answers.append(expert(tokens).logits)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(answers[one], answers[other], atol=1e-3)
