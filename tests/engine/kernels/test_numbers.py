"""The kernels give the numbers of plain torch and of bitsandbytes, alone and in a whole model."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from torch import Tensor, nn

from app.engine.adapter_files import read_adapter
from app.engine.base import BaseOptions, load_base
from app.engine.joined import Nf4Matrix, join_biases
from app.engine.kernels import can_run_kernels
from app.engine.kernels.contest import ROWS
from app.engine.slots import SlotBank, linear_layers
from app.engine.tiles import Tiler
from app.engine.updates import Batch, SlotStore, apply_updates
from tests.engine.kernels.conftest import IS_INTERPRETED, needs_triton
from tests.engine.tiny import make_model, peft_logits, write_adapter, write_base

pytestmark = [pytest.mark.gpu, needs_triton]

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
ROUNDING = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}  # of the largest number
MIX = [2, 0, 1, 2, 3, 0, 1]
SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}  # whole blocks of 64 weights


def store_of(outs: tuple[int, ...], ranks: list[list[int]], *, in_features: int, dtype: torch.dtype) -> SlotStore:
    """One group on the processor; ``ranks``: member by member, of each slot. All that no adapter has is NaN."""
    store = SlotStore(
        1,
        in_features=in_features,
        outs=outs,
        num_slots=len(ranks[0]),
        max_rank=max(max(of_member) for of_member in ranks),
        dtype=dtype,
        device=torch.device("cpu"),
    )
    store.a.fill_(torch.nan)
    store.whole_b.fill_(torch.nan)
    for member, of_member in enumerate(ranks):
        for slot, rank in enumerate(of_member, start=1):
            a, b = store.places(0, member, slot, rank)
            a.normal_(std=in_features**-0.5)
            b.normal_(std=0.5)
    store.ranks[0] = torch.tensor(ranks, dtype=torch.int32)
    return store


def moved(store: SlotStore, device: torch.device) -> SlotStore:
    """The same on another device."""
    there = copy.copy(store)
    there.a, there.whole_b, there.ranks = (each.to(device) for each in (store.a, store.whole_b, store.ranks))
    return there


def wanted_updates(store: SlotStore, x: Tensor, before: Tensor, slots: list[int]) -> Tensor:
    """In float64, row by row."""
    y, tokens = before.double(), len(x) // len(slots)
    for row, slot in enumerate(slots):
        for member, part in enumerate(y[row * tokens : (row + 1) * tokens].split_with_sizes(store.outs, dim=1)):
            if slot and (rank := int(store.ranks[0, member, slot - 1])):
                a, b = (each.double() for each in store.places(0, member, slot, rank))
                part += x[row * tokens : (row + 1) * tokens].double() @ a.T @ b
    return y


def check_updates(
    store: SlotStore, slots: list[int], num_tokens: int, device: torch.device, *, has_whole: bool = True
) -> None:
    dtype = store.a.dtype
    x = torch.randn(len(slots) * num_tokens, store.a.shape[-1]).to(dtype)
    before = torch.randn(len(x), sum(store.outs)).to(dtype)
    whole = before.clone().to(device)
    parts = whole.split_with_sizes(store.outs, dim=1)
    parts = parts if has_whole else tuple(part.clone() for part in parts)
    tiles = Tiler(store.a.shape[2], device).tiles(slots, num_tokens)
    batch = Batch(len(slots), num_tokens, (), tiles=tiles)
    apply_updates(
        parts, x.to(device), whole=whole if has_whole else None, store=moved(store, device), group=0, batch=batch
    )
    ours, wanted = torch.cat([*parts], dim=1).cpu(), wanted_updates(store, x, before, slots)
    bare = torch.tensor([not slot for slot in slots]).repeat_interleave(num_tokens)
    assert torch.equal(ours[bare], before[bare])
    torch.testing.assert_close(ours.double(), wanted, rtol=0, atol=ROUNDING[dtype] * float(wanted.abs().max()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("has_whole", [True, False])
@pytest.mark.parametrize("num_tokens", [1, 5, 40])
def test_members_of_different_sizes_get_their_slots_updates(
    dtype: torch.dtype, has_whole: bool, num_tokens: int, device: torch.device
) -> None:
    """Ranks that differ by slot and member; one adapter has nothing here at all."""
    torch.manual_seed(0)
    store = store_of((96, 40, 24), [[8, 4, 0], [8, 3, 0], [0, 8, 0]], in_features=80, dtype=dtype)
    check_updates(store, MIX, num_tokens, device, has_whole=has_whole)


@pytest.mark.parametrize("slots", [[1], [0, 0, 4], [4, 3, 2, 1], [2] * 40, [row % 5 for row in range(64)]])
def test_any_mix(slots: list[int], device: torch.device) -> None:
    """One row, bare rows first, all different, one segment of many tiles, many segments."""
    torch.manual_seed(1)
    check_updates(store_of((70,), [[16, 1, 7, 16]], in_features=48, dtype=torch.float32), slots, 1, device)


@pytest.mark.parametrize("in_features", [16, 1024, 2500])
@pytest.mark.parametrize("rank", [1, 16, 24])
def test_any_width_and_rank(in_features: int, rank: int, device: torch.device) -> None:
    """Up to several sums of parts of the inputs, and ranks that are no power of two."""
    torch.manual_seed(2)
    store = store_of((65, 64), [[rank, rank]] * 2, in_features=in_features, dtype=torch.float32)
    check_updates(store, [1, 0, 2, 2], 1, device)


def test_a_row_gets_the_same_whoever_its_neighbours_are(device: torch.device) -> None:
    torch.manual_seed(3)
    store = moved(store_of((64,), [[8, 8]], in_features=128, dtype=torch.float32), device)
    x = torch.randn(40, 128, device=device)
    found = []
    for slots in ([1] + [0] * 39, [1] * 40, [1] + [2] * 39):
        y = torch.zeros(40, 64, device=device)
        batch = Batch(40, 1, (), tiles=Tiler(2, device).tiles(slots, 1))
        apply_updates([y], x, whole=y, store=store, group=0, batch=batch)
        found.append(y[0])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.skipif(IS_INTERPRETED, reason="only a GPU records graphs")
def test_a_recorded_step_computes_the_slots_of_the_step_it_is_replayed_in(device: torch.device) -> None:
    torch.manual_seed(6)
    here = store_of((96, 32), [[8, 4], [8, 4]], in_features=128, dtype=torch.float32)
    store, tiler = moved(here, device), Tiler(2, device)
    x, before = torch.randn(4, 128), torch.randn(4, 128)
    x_there, before_there, whole = x.to(device), before.to(device), torch.zeros(4, 128, device=device)
    batch = Batch(4, 1, (), tiles=tiler.tiles([1, 1, 0, 2], 1))

    def step() -> None:
        whole.copy_(before_there)
        apply_updates(whole.split_with_sizes(here.outs, dim=1), x_there, whole=whole, store=store, group=0, batch=batch)

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for slots in ([1, 1, 0, 2], [0, 0, 0, 1], [2, 1, 2, 1], [0, 0, 0, 0]):
        tiler.tiles(slots, 1)
        graph.replay()
        wanted = wanted_updates(here, x, before, slots)
        torch.testing.assert_close(whole.cpu().double(), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_trial_before_use_is_passed(dtype: torch.dtype, device: torch.device) -> None:
    from app.engine.kernels.trial import agrees  # Triton's, which not every machine has

    assert agrees(device, dtype)
    assert can_run_kernels(device, dtype) == (device.type == "cuda")


def quantized(outs: int, in_features: int, dtype: torch.dtype, device: torch.device, *, has_bias: bool) -> Any:
    """A layer as ``load_base`` has it: NF4, scales quantized, too."""
    plain = nn.Linear(in_features, outs, bias=has_bias, dtype=dtype)
    layer: Any = Linear4bit(  # type: ignore[no-untyped-call]
        in_features, outs, bias=has_bias, compute_dtype=dtype, quant_type="nf4", compress_statistics=True
    )
    layer.load_state_dict(plain.state_dict())
    layer = layer.to(device).requires_grad_(False)
    layer.support_avx512bf16_for_cpu = False
    return layer.eval()


@pytest.mark.parametrize("way", ["bytes", "words", "words, narrow"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("outs", "in_features", "rows"), [((40,), 64, 1), ((100, 28), 192, 5), ((96, 32, 32), 320, 17), ((33,), 512, 64)]
)
def test_a_product_of_four_bits_is_bitsandbytes(
    outs: tuple[int, ...], in_features: int, rows: int, dtype: torch.dtype, way: str, device: torch.device
) -> None:
    torch.manual_seed(4)
    layers = [quantized(out, in_features, dtype, device, has_bias=number != 1) for number, out in enumerate(outs)]
    x = torch.randn(rows, in_features, device=device).to(dtype)
    stock = torch.cat([layer(x) for layer in layers], dim=1).double()
    exact = torch.cat([_exact(layer, x) for layer in layers], dim=1)
    matrix = Nf4Matrix(layers, bias=join_biases(layers))
    ours = matrix.ways[way](x).double()
    tolerance = ROUNDING[dtype] * float(exact.abs().max())
    torch.testing.assert_close(ours, exact, rtol=0, atol=tolerance)
    torch.testing.assert_close(ours, stock, rtol=0, atol=tolerance)


def _exact(layer: Any, x: Tensor) -> Tensor:
    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).double()
    return x.double() @ weight.T + (0 if layer.bias is None else layer.bias.double())


def test_rows_of_any_shape_and_stride(device: torch.device) -> None:
    torch.manual_seed(5)
    layer = quantized(64, 64, torch.float32, device, has_bias=False)
    matrix = Nf4Matrix([layer], bias=None)
    x = torch.randn(3, 64, 2, device=device).transpose(1, 2)[:, :, :64]
    for way in matrix.ways.values():
        ours = matrix.multiply(dict.fromkeys(ROWS, way), x)
        assert ours.shape == (3, 2, 64)
        torch.testing.assert_close(ours, matrix.multiply({}, x))


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("dtype", ["float32"] if IS_INTERPRETED else ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("num_tokens", [1, 6])
def test_a_mixed_batch_computes_what_peft_computes(
    quantization: str, dtype: str, num_tokens: int, device: torch.device, tmp_path: Path
) -> None:
    """The whole model, adapters of several ranks, one of them on few layers, bare rows in between."""
    options = BaseOptions("tiny", "tiny/random", quantization="none", dtype="float32", device=device.type)  # type: ignore[arg-type]
    folder = write_base(tmp_path / "base", **SIZES)
    base = load_base(replace(options, quantization=quantization, dtype=dtype), folder)  # type: ignore[arg-type]
    plain = make_model("llama", **SIZES)
    few = sorted(linear_layers(plain))[:3]
    configs: dict[int, dict[str, Any]] = {1: {"r": 8}, 2: {"r": 2, "target_modules": few}, 3: {"r": 3}}
    for slot, config in configs.items():
        write_adapter(plain, tmp_path / str(slot), seed=slot, **config)
    prompts = [[(50 + 7 * row + 3 * place) % 250 for place in range(num_tokens)] for row in range(len(MIX))]
    wanted = [
        peft_logits(base.model, tmp_path / str(slot) if slot else None, prompt)
        for slot, prompt in zip(MIX, prompts, strict=True)
    ]
    kind = getattr(torch, dtype)
    bank = SlotBank(base.model, num_slots=3, max_rank=8, dtype=kind, has_kernels=True)
    for slot in (1, 2, 3):
        bank.write(slot, read_adapter(tmp_path / str(slot), dtype=kind).pairs)
    bank.segments.set(MIX, num_tokens=num_tokens)
    with torch.inference_mode():
        ours = base.model(input_ids=torch.tensor(prompts, device=device), use_cache=False).logits
    for mine, logits in zip(ours, wanted, strict=True):
        difference = (mine.float() - logits.float()).norm() / logits.float().norm()
        assert difference < {"float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}[dtype]
