"""Reading adapter folders: what PEFT wrote is read as PEFT means it, everything else is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.core.errors import AdapterRefused
from app.engine.adapter_files import ORIGIN_FILE, read_adapter
from app.engine.decoding import Decoder
from tests.engine.tiny import make_bank, make_base, make_model, peft_logits, write_adapter

Tensors = dict[str, torch.Tensor]
FIRST = "base_model.model.model.layers.0.mlp.up_proj"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound adapter of the tiny llama."""
    return write_adapter(make_model("llama"), tmp_path / "adapter")


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(folder: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")


def test_a_sound_folder_is_read(folder: Path) -> None:
    file = read_adapter(folder)
    assert (file.rank, len(file.pairs), file.base_fingerprint) == (4, 14, None)
    tensors = load_file(folder / "adapter_model.safetensors")
    assert file.num_bytes == sum(tensor.nbytes for tensor in tensors.values())
    pair = file.pairs["model.layers.0.mlp.up_proj"]
    assert torch.equal(pair.a, tensors[f"{FIRST}.lora_A.weight"].T)
    assert torch.equal(pair.b, tensors[f"{FIRST}.lora_B.weight"].T * 2)  # alpha 8 over rank 4


def test_the_origin_is_read(folder: Path) -> None:
    (folder / ORIGIN_FILE).write_text(json.dumps({"base_fingerprint": "abc"}))
    assert read_adapter(folder).base_fingerprint == "abc"


@pytest.mark.parametrize("config", [{"use_rslora": True}, {"target_modules": ["q_proj", "down_proj"]}, {"r": 1}])
def test_peft_means_the_same(config: dict[str, Any], tmp_path: Path) -> None:
    base = make_base("llama")
    write_adapter(base.model, tmp_path, **config)
    wanted = torch.log_softmax(peft_logits(base.model, tmp_path, [1, 50, 60, 70]), dim=-1)
    bank = make_bank(base)
    bank.write(2, read_adapter(tmp_path).pairs)
    ours = Decoder(base, bank.segments).log_probabilities([1, 50, 60, 70], 2)
    torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "bias='all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
        ({"layer_replication": [[0, 1], [0, 2]]}, "layer_replication"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights='pissa_niter_4'"),
        ({"init_lora_weights": "olora"}, "init_lora_weights='olora'"),
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"peft_type": None}, "peft_type None"),
        ({"r": 8}, "rank 8"),
        ({"r": 0}, "r is 0"),
        ({"r": "four"}, "r is 'four'"),
        ({"lora_alpha": None}, "lora_alpha is None"),
    ],
)
def test_what_slots_cannot_honour_is_refused(folder: Path, config: dict[str, Any], reason: str) -> None:
    change_config(folder, **config)
    with pytest.raises(AdapterRefused) as refusal:
        read_adapter(folder)
    assert reason in refusal.value.message
    assert refusal.value.param == "adapter"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors: tensors.pop(f"{FIRST}.lora_B.weight"), "only one of lora_A and lora_B"),
        (lambda tensors: tensors.update({f"{FIRST}.lora_B.bias": torch.zeros(2)}), "unexpected tensor"),
        (lambda tensors: tensors.update({"lm_head.weight": torch.zeros(2, 2)}), "unexpected tensor"),
        (lambda tensors: tensors.update({f"{FIRST}.lora_A.weight": torch.zeros(4)}), "no matrix"),
        (lambda tensors: tensors.update({f"{FIRST}.lora_A.weight": torch.zeros(3, 32)}), "rank 4"),
        (lambda tensors: tensors.clear(), "no LoRA weights"),
    ],
)
def test_tensors_that_do_not_belong_are_refused(folder: Path, change: Callable[[Tensors], object], reason: str) -> None:
    change_tensors(folder, change)
    with pytest.raises(AdapterRefused, match=reason):
        read_adapter(folder)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("adapter_config.json", None),
        ("adapter_config.json", b"{"),
        ("adapter_config.json", b"[]"),
        ("adapter_config.json", b"\xff\xfe"),
        ("adapter_model.safetensors", None),
        ("adapter_model.safetensors", b"short"),
        ("adapter_model.safetensors", b""),
        (ORIGIN_FILE, b"{}"),
        (ORIGIN_FILE, b"no JSON"),
    ],
)
def test_a_folder_that_is_no_adapter_is_refused(folder: Path, file: str, content: bytes | None) -> None:
    """A bug: only some of these were translated; the others ended as an internal error."""
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(AdapterRefused, match="cannot read adapter folder adapter: "):
        read_adapter(folder)
