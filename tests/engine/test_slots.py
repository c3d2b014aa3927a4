"""Slots in a batch: any rows in any order, each what its own adapter makes of it, and nothing from its neighbours."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from app.core.errors import AdapterRefused
from app.engine.adapter_files import read_adapter
from app.engine.base import LoadedBase
from app.engine.shared_inputs import shared_inputs
from app.engine.slots import LoraPair, SlotBank, linear_layers
from tests.engine.tiny import FAMILIES, make_bank, make_base, make_model, peft_logits, write_adapter

pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # PEFT, of Conv1D layers

LAYERS = {"q": "model.layers.0.self_attn.q_proj", "k": "model.layers.0.self_attn.k_proj"}
MIXES = [[2, 0, 1, 2, 3, 0, 1], [1] * 7, [0] * 7, [3, 1, 3, 1, 3, 1, 3], [0, 0, 0, 0, 0, 0, 2]]


def logits(base: LoadedBase, bank: SlotBank, slots: list[int], *, num_tokens: int) -> Tensor:
    """[rows, tokens, vocabulary]; row n's tokens are ``tokens(n)``."""
    bank.segments.set(slots, num_tokens=num_tokens)
    ids = torch.tensor([tokens(row, num_tokens) for row in range(len(slots))])
    with torch.inference_mode():
        return torch.as_tensor(base.model(input_ids=ids, use_cache=False).logits)


def tokens(row: int, num_tokens: int) -> list[int]:
    return [(50 + 7 * row + 3 * place) % 250 for place in range(num_tokens)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "falcon", "opt", "qwen2"])
@pytest.mark.parametrize("num_tokens", [1, 3, 40])
def test_rows_in_any_order_compute_what_peft_computes(family: str, num_tokens: int, tmp_path: Path) -> None:
    """Adapters of several ranks, one of them on few layers; one token a row, a few, and many."""
    base = make_base(family)
    bare = copy.deepcopy(base.model)
    few = sorted(linear_layers(bare))[:3]
    configs: dict[int, dict[str, Any]] = {1: {"r": 8}, 2: {"r": 2, "target_modules": few}, 3: {"r": 3}}
    bank = make_bank(base)
    for slot, config in configs.items():
        bank.write(slot, read_adapter(write_adapter(bare, tmp_path / str(slot), seed=slot, **config)).pairs)
    wanted = {
        (slot, row): peft_logits(bare, tmp_path / str(slot) if slot else None, tokens(row, num_tokens))
        for row, slot in {(row, slot) for mix in MIXES for row, slot in enumerate(mix)}
    }
    logits(base, bank, MIXES[0], num_tokens=1)  # so that there is a stack
    for mix in MIXES:
        ours = logits(base, bank, mix, num_tokens=num_tokens)
        for row, slot in enumerate(mix):
            torch.testing.assert_close(ours[row], wanted[slot, row], atol=1e-4, rtol=0)


@pytest.mark.parametrize("num_tokens", [1, 3, 40])
def test_an_adapter_that_overflows_spoils_its_own_rows_only(num_tokens: int, tmp_path: Path) -> None:
    base = make_base("llama")
    sound = read_adapter(write_adapter(base.model, tmp_path)).pairs
    bank = make_bank(base)
    bank.write(1, sound)
    bank.write(2, {name: LoraPair(a=pair.a * 1e38, b=pair.b) for name, pair in sound.items()})
    bare = logits(base, bank, [0] * 6, num_tokens=num_tokens)
    alone = logits(base, bank, [1] * 6, num_tokens=num_tokens)
    mixed = logits(base, bank, [2, 0, 1, 2, 0, 1], num_tokens=num_tokens)
    assert not mixed[[0, 3]].isfinite().any()
    assert torch.equal(mixed[[1, 4]], bare[[1, 4]])
    torch.testing.assert_close(mixed[[2, 5]], alone[[2, 5]], atol=1e-5, rtol=0)


def test_a_bare_row_beside_others_is_the_base_bit_by_bit(tmp_path: Path) -> None:
    base = make_base("llama")
    write_adapter(base.model, tmp_path)
    bank = make_bank(base)
    bank.write(3, read_adapter(tmp_path).pairs)
    for num_tokens in (1, 5):
        bare = logits(base, bank, [0] * 5, num_tokens=num_tokens)
        mixed = logits(base, bank, [3, 0, 3, 0, 0], num_tokens=num_tokens)
        assert torch.equal(mixed[[1, 3, 4]], bare[[1, 3, 4]])
        assert not torch.allclose(mixed[[0, 2]], bare[[0, 2]], atol=1e-2)


def test_a_mix_that_lasts_computes_the_same_in_bfloat16(tmp_path: Path) -> None:
    """There a stack that lasts is laid out anew after some passes."""
    base = make_base("llama")
    sound = read_adapter(write_adapter(base.model, tmp_path), dtype=torch.bfloat16).pairs
    base.model.to(torch.bfloat16)
    bank = SlotBank(base.model, num_slots=3, max_rank=8, dtype=torch.bfloat16)
    bank.write(1, sound)
    bank.write(2, {name: LoraPair(a=pair.a * 1e38, b=pair.b) for name, pair in sound.items()})
    mix = [1, 0, 2, 1, 0]
    bare = logits(base, bank, [0] * 5, num_tokens=1)
    passes = [logits(base, bank, mix, num_tokens=1) for _ in range(40)]
    assert torch.equal(passes[-1][[1, 4]], bare[[1, 4]])
    assert not passes[-1][2].isfinite().any()
    torch.testing.assert_close(passes[-1][[0, 3]], passes[0][[0, 3]], atol=0.5, rtol=0)
    assert (passes[-1][[0, 3]] - bare[[0, 3]]).abs().max() > 2


@pytest.mark.parametrize("num_tokens", [1, 5])
def test_what_is_written_or_cleared_acts_in_the_next_pass(num_tokens: int, tmp_path: Path) -> None:
    base = make_base("llama")
    bare = copy.deepcopy(base.model)
    folders = {name: write_adapter(bare, tmp_path / name, seed=rank, r=rank) for rank, name in enumerate("ab", 2)}
    files = {name: read_adapter(folder) for name, folder in folders.items()}
    bank, mix = make_bank(base), [1, 0, 2]

    def check(*names: str | None) -> None:
        for row, (ours, name) in enumerate(zip(logits(base, bank, mix, num_tokens=num_tokens), names, strict=True)):
            wanted = peft_logits(bare, folders[name] if name else None, tokens(row, num_tokens))
            torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=0)

    bank.write(1, files["a"].pairs)
    bank.write(2, files["a"].pairs)
    check("a", None, "a")
    bank.write(2, files["b"].pairs)
    check("a", None, "b")
    bank.clear(1)
    check(None, None, "b")
    bank.write(1, {LAYERS["q"]: files["b"].pairs[LAYERS["q"]]})
    bank.write(1, files["b"].pairs)
    check("b", None, "b")


def test_what_the_last_adapter_left_in_a_slot_is_gone(tmp_path: Path) -> None:
    """Layers and ranks that the next one does not use are zeros, whatever stood there."""
    base = make_base("llama")
    pairs = read_adapter(write_adapter(base.model, tmp_path)).pairs
    only = {LAYERS["q"]: pairs[LAYERS["q"]]}
    unused = make_base("llama")
    fresh, used = make_bank(unused), make_bank(base)
    fresh.write(1, only)
    used.write(1, {name: LoraPair(a=pair.a * 1e38, b=pair.b) for name, pair in pairs.items()})
    used.write(1, only)
    for num_tokens in (1, 40):
        wanted = logits(unused, fresh, [1, 0], num_tokens=num_tokens)
        assert torch.equal(logits(base, used, [1, 0], num_tokens=num_tokens), wanted)


def test_training_sees_the_base_alone_and_serving_goes_on_after_it(tmp_path: Path) -> None:
    base = make_base("llama-tied")
    bare = copy.deepcopy(base.model)
    bank = make_bank(base)
    bank.write(1, read_adapter(write_adapter(bare, tmp_path)).pairs)
    before = logits(base, bank, [1, 0], num_tokens=4)
    with bank.removed():
        assert {name: type(layer) for name, layer in base.model.named_modules()} == {
            name: type(layer) for name, layer in bare.named_modules()
        }
        ids = torch.tensor([tokens(0, 4)])
        embedded = base.model.get_input_embeddings()(ids).requires_grad_()
        there, wanted = (model(inputs_embeds=embedded, use_cache=False).logits for model in (base.model, bare))
        assert torch.equal(there, wanted), "the base's own layers, not a packed copy"
        there.sum().backward()
        assert embedded.grad is not None
    assert torch.equal(logits(base, bank, [1, 0], num_tokens=4), before)


def test_a_matrix_that_fits_no_layer_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    base = make_base("llama")
    pairs = read_adapter(write_adapter(base.model, tmp_path)).pairs
    bank = make_bank(base)
    bank.write(1, pairs)
    before = logits(base, bank, [1], num_tokens=2)
    narrow = LoraPair(a=torch.ones(31, 4), b=torch.ones(4, 32))
    wide = LoraPair(a=torch.ones(32, 9), b=torch.ones(9, 32))
    for bad, reason in (
        ({LAYERS["q"]: narrow}, "the adapter has A"),
        ({LAYERS["q"]: wide}, "SELFSPEC_MAX_LORA_RANK"),
        ({"model.layers.9.mlp.up_proj": wide}, "made for another base"),
    ):
        with pytest.raises(AdapterRefused, match=reason):
            bank.write(1, {**pairs, **bad})
    assert torch.equal(logits(base, bank, [1], num_tokens=2), before)


def test_the_bytes_of_a_slot_grow_with_the_rank() -> None:
    assert make_bank(make_base(), max_rank=8).slot_bytes == 2 * make_bank(make_base(), max_rank=4).slot_bytes > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_is_in_one_group(family: str) -> None:
    model = make_model(family)
    names = linear_layers(model)
    assert sorted(name for group in shared_inputs(model, names) for name in group) == sorted(names)


def test_layers_with_one_input_are_found() -> None:
    model = make_model("llama")
    groups = shared_inputs(model, linear_layers(model))
    assert [[name.rpartition(".")[2] for name in group] for group in groups[:4]] == [
        ["q_proj", "k_proj", "v_proj"],
        ["o_proj"],
        ["gate_proj", "up_proj"],
        ["down_proj"],
    ]


class Odd(nn.Module):
    """A model that does with its layers what few do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(9, 6), nn.Linear(6, 9)
        self.first, self.second, self.twice, self.third, self.fourth = (nn.Linear(6, 6) for _ in range(5))
        self.is_short = False

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: Tensor, **_: Any) -> Tensor:
        x = self.embed(input_ids)
        y = self.first(x).mul_(2)  # a part is written into before the others are taken
        if not self.is_short:
            y = y + self.second(x)
        x.add_(1)
        y = y + self.third(x)  # the same tensor, changed in between
        y = y + self.twice(y) + self.twice(y) + self.twice(y).mul_(3) + self.twice(y)
        return torch.as_tensor(self.head(y + self.fourth(y)))


def test_layers_that_are_called_oddly_are_still_right() -> None:
    model, plain = Odd().eval().requires_grad_(False), Odd().eval().requires_grad_(False)
    assert shared_inputs(model, linear_layers(model)) == [["first", "second"], ["third"], ["fourth"], ["twice"]]
    bank = SlotBank(model, num_slots=2, max_rank=2, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    pairs = {
        name: LoraPair(a=torch.randn(6, 2, generator=generator), b=torch.randn(2, 6, generator=generator))
        for name in ("first", "second", "third", "twice", "fourth")
    }
    bank.write(2, pairs)
    merged = copy.deepcopy(plain)
    for name, pair in pairs.items():
        merged.get_parameter(f"{name}.weight").add_((pair.a @ pair.b).T)
    ids = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 0]])
    with torch.inference_mode():
        for is_short in (False, True, False, True):
            model.is_short = plain.is_short = merged.is_short = is_short
            bank.segments.set([0, 2, 0], num_tokens=3)
            mixed, bare, alone = (each(ids) for each in (model, plain, merged))
            torch.testing.assert_close(mixed[[0, 2]], bare[[0, 2]], atol=1e-4, rtol=1e-5)
            torch.testing.assert_close(mixed[1], alone[1], atol=1e-4, rtol=1e-5)


def test_a_model_that_does_not_run_on_two_tokens_has_its_layers_alone() -> None:
    model = Odd()
    model.embed = nn.Embedding(0, 6)  # it has no token 0
    assert shared_inputs(model, linear_layers(model)) == [[name] for name in linear_layers(model)]
