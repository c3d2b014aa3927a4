"""Reading adapter folders: what PEFT wrote is read as PEFT means it, everything else is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, get_peft_model
from safetensors.torch import load_file, save_file

from app.core.errors import AdapterRefused
from app.engine.adapter_files import ORIGIN_FILE, read_adapter
from app.engine.forward import Forward
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_read_into_the_dtype_that_is_asked_for(folder: Path, dtype: torch.dtype) -> None:
    saved, file = read_adapter(folder), read_adapter(folder, dtype=dtype)
    assert {matrix.dtype for pair in file.pairs.values() for matrix in (pair.a, pair.b)} == {dtype}
    assert file.num_bytes == saved.num_bytes * dtype.itemsize // 4
    for layer, pair in saved.pairs.items():
        assert torch.equal(file.pairs[layer].a, pair.a.to(dtype))
        assert torch.equal(file.pairs[layer].b, pair.b.to(dtype))


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("llama", {"use_rslora": True}),
        ("llama", {"target_modules": ["q_proj", "down_proj"]}),
        ("llama", {"exclude_modules": ["k_proj"]}),
        ("llama", {"target_modules": ["k_proj", "up_proj"], "layers_to_transform": [1]}),
        ("llama", {"r": 1}),
        ("llama", {"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 7}}),
        ("llama", {"alpha_pattern": {"v_proj": 3, "o_proj": 20}}),
        ("llama", {"rank_pattern": {"^model.layers.1.*gate_proj": 6}, "alpha_pattern": {"layers.0.*": 1, "q_proj": 5}}),
        ("gpt2", {"fan_in_fan_out": True}),
        ("gpt2", {"fan_in_fan_out": True, "rank_pattern": {"c_attn": 1}}),
    ],
)
def test_peft_means_the_same(family: str, config: dict[str, Any], tmp_path: Path) -> None:
    base = make_base(family)
    write_adapter(base.model, tmp_path, **config)
    wanted = torch.log_softmax(peft_logits(base.model, tmp_path, [1, 50, 60, 70]), dim=-1)
    bank = make_bank(base)
    bank.write(2, read_adapter(tmp_path).pairs)
    ours = Forward(base, bank.segments).log_probabilities([1, 50, 60, 70], 2)
    torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"use_dora": True}, "use_dora=False"),
        ({"bias": "all"}, "bias='all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 2}}, "says rank 2"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern['q_proj'] is 0"),
        ({"alpha_pattern": {"q_proj": "two"}}, "alpha_pattern['q_proj'] is 'two'"),
        ({"alpha_pattern": ["q_proj"]}, "alpha_pattern is no JSON object"),
        ({"rank_pattern": {"q_(": 2}}, "no regular expression"),
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
        (lambda tensors: tensors.update({f"{FIRST}.lora_A.weight": torch.zeros(4, 32).long()}), "no matrix of numbers"),
        (lambda tensors: tensors[f"{FIRST}.lora_A.weight"][1, 2].fill_(torch.nan), "no finite float32"),
        (lambda tensors: tensors[f"{FIRST}.lora_B.weight"][1, 2].fill_(-torch.inf), "no finite float32"),
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


def test_weights_that_the_dtype_cannot_hold_are_refused(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors[f"{FIRST}.lora_B.weight"][1, 2].fill_(1e5))
    read_adapter(folder)
    with pytest.raises(AdapterRefused, match="no finite float16"):
        read_adapter(folder, dtype=torch.float16)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_shortened_file_is_refused_in_one_line(folder: Path, share: float) -> None:
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[: int(share * weights.stat().st_size)])
    with pytest.raises(AdapterRefused, match="cannot read adapter folder adapter: ") as refusal:
        read_adapter(folder)
    assert "\n" not in refusal.value.message


def test_a_pickled_adapter_is_refused_with_the_remedy(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(AdapterRefused, match="safe_serialization=True"):
        read_adapter(folder)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"use_dora": True}, "use_dora=False"),
        ({"bias": "lora_only"}, "bias='none'"),
        ({"bias": "all"}, "bias='none'"),
        ({"lora_bias": True}, "lora_bias=False"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save are not supported; train it without"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "LoRA on embeddings"),
        ({"target_modules": ["q_proj", "lm_head"]}, "output head 'lm_head'"),
        ({"trainable_token_indices": [3, 4]}, "trainable_token_indices are not supported; train it without"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"alora_invocation_tokens": [1, 2]}, "would act on every token"),
        ({"target_modules": ["q_proj"], "target_parameters": ["mlp.up_proj.weight"]}, "target_parameters"),
        ({"init_lora_weights": "pissa"}, "path_initial_model_for_weight_conversion"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*lora_bias=True. was passed", "ignore:.*lora_B.bias")  # PEFT, of its own file
def test_what_peft_writes_beyond_plain_lora_is_refused_with_the_remedy(
    config: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    base = make_base("llama")
    write_adapter(base.model, tmp_path, **config)
    with pytest.raises(AdapterRefused) as refusal:
        make_bank(base).check(read_adapter(tmp_path).pairs)
    assert reason in refusal.value.message
    assert refusal.value.param == "adapter"


def test_another_kind_of_adapter_is_refused(tmp_path: Path) -> None:
    peft = get_peft_model(make_model("llama"), IA3Config(task_type="CAUSAL_LM"))
    peft.save_pretrained(str(tmp_path))
    with pytest.raises(AdapterRefused, match="'IA3' is not supported; only LORA is"):
        read_adapter(tmp_path)
