"""``python -m benchmarks.kernels``: decode steps on a GPU, beside what its memory allows.

A random model in LLaMA-2-7B's shape computes one token a row behind ``--past`` tokens each: the model alone, without
sampling or HTTP, recorded as a CUDA graph as the engine records its steps, or launched kernel by kernel. Its limit is
the time in which everything that such a step must read (weights, adapters, keys and values; of the embeddings next to
nothing) is read once, at the bandwidth that a copy reaches in the same run. With fewer layers the share of the limit is
what counts; tokens a second are scaled to 32 by the bytes read. The last line is JSON; where there is no CUDA device it
says so, and nothing is measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit, Params4bit
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.cache_utils import Cache

from app.engine.rectangle import FixedColumns, Layout, Rectangle, layout_of
from app.engine.slots import LoraPair, SlotBank, linear_layers
from app.engine.step_graphs import Record, cuda_recorder, rounded_columns

SHAPE = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "vocab_size": 32000}
LAYERS, RANK, ADAPTERS = 32, 16, 8
COPIED_BYTES = 1 << 30
COPIES, WARM_UPS = 10, 5


@dataclass(frozen=True, slots=True)
class Variant:
    """How a model is computed. ``has_kernels`` None: as transformers has it, without slots."""

    name: str
    quantization: str
    has_kernels: bool | None = None
    num_adapters: int = 0
    is_recorded: bool = True


VARIANTS = (
    Variant("bfloat16, launched", "none", is_recorded=False),
    Variant("bfloat16", "none"),
    Variant("nf4, bitsandbytes, launched", "nf4", is_recorded=False),
    Variant("nf4, bitsandbytes", "nf4"),
    Variant("nf4, ours", "nf4", has_kernels=True),
    Variant("nf4, 8 adapters, torch, launched", "nf4", has_kernels=False, num_adapters=ADAPTERS, is_recorded=False),
    Variant("nf4, 8 adapters, ours", "nf4", has_kernels=True, num_adapters=ADAPTERS),
    Variant("bfloat16, 8 adapters, ours", "none", has_kernels=True, num_adapters=ADAPTERS),
)


@dataclass(frozen=True, slots=True)
class Point:
    """One variant at one batch size."""

    variant: str
    rows: int
    seconds: float  # of a step of the layers there are
    num_bytes: int  # that it must read
    full_bytes: int  # that one of all 32 layers must read
    bandwidth: float  # bytes a second

    @property
    def share(self) -> float:
        """Of the limit that was reached."""
        return self.num_bytes / self.bandwidth / self.seconds

    @property
    def limit(self) -> float:
        """Tokens a second of 32 layers, were reading all that it takes."""
        return self.rows * self.bandwidth / self.full_bytes

    def row(self) -> dict[str, Any]:
        return {
            "variant": self.variant,
            "rows": self.rows,
            "step_ms": round(1e3 * self.seconds, 3),
            "tokens_per_s": round(self.share * self.limit, 1),
            "limit_tokens_per_s": round(self.limit, 1),
            "share": round(self.share, 3),
        }


def make_model(shape: dict[str, int], num_layers: int, *, quantization: str, device: str) -> Any:
    """Random weights in bfloat16, its linear layers in NF4 if asked for."""
    sizes: dict[str, Any] = {**shape, "num_hidden_layers": num_layers}
    config = LlamaConfig(**sizes)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()  # type: ignore[no-untyped-call]
    model.requires_grad_(False)
    if quantization == "nf4":
        for name, layer in linear_layers(model).items():
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, _in_nf4(layer, device))
    return model


def _in_nf4(layer: Any, device: str) -> Any:
    four: Any = Linear4bit(  # type: ignore[no-untyped-call]
        layer.in_features,
        layer.out_features,
        bias=False,
        compute_dtype=torch.bfloat16,
        quant_type="nf4",
        compress_statistics=True,
        device="meta",
    )
    four.weight = Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", module=four)
    four.support_avx512bf16_for_cpu = False
    return four.to(device).eval()


def weight_bytes(model: Any) -> int:
    """What a step reads of the weights: all but the embeddings; of 4-bit ones also bitsandbytes' scales."""
    embeddings = model.get_input_embeddings().weight
    total = sum(int(parameter.nbytes) for parameter in model.parameters() if parameter is not embeddings)
    states = [getattr(parameter, "quant_state", None) for parameter in model.parameters()]
    return total + sum(int(state.absmax.nbytes + state.state2.absmax.nbytes) for state in states if state is not None)


def put_adapters(bank: SlotBank, model: Any, number: int) -> None:
    """Random ones of RANK on all linear layers, in the slots from 1."""
    device = next(model.parameters()).device
    for slot in range(1, number + 1):
        layers: dict[str, Any] = {**linear_layers(model)}
        pairs = {
            name.removesuffix(".base"): LoraPair(
                a=torch.randn(layer.in_features, RANK, device=device, dtype=torch.bfloat16) / layer.in_features,
                b=torch.randn(RANK, layer.out_features, device=device, dtype=torch.bfloat16),
            )
            for name, layer in layers.items()
        }
        bank.write(slot, pairs)


def step_of(model: Any, layout: Layout, rows: int, past: int, record: Record | None = None) -> Callable[[], Tensor]:
    """A function that computes one token a row; every call writes the same column. ``record``: as the engine has it."""
    device, columns = model.device, past + 1
    if record is None:
        rectangle = Rectangle(layout, rows, columns)
        rectangle.last = past
        keys_and_values: Cache = rectangle
    else:
        columns = rounded_columns(past)
        column = torch.full((1,), past, device=device)
        keys_and_values = FixedColumns(Rectangle(layout, rows, columns), rows, columns, column)
    arguments = {
        "input_ids": torch.ones(rows, 1, dtype=torch.long, device=device),
        "attention_mask": (torch.arange(columns, device=device) <= past).long().expand(rows, columns),
        "position_ids": torch.full((rows, 1), past, device=device),
        "past_key_values": keys_and_values,
        "use_cache": True,
        "logits_to_keep": 1,
    }

    def step() -> Tensor:
        with torch.inference_mode():
            return torch.as_tensor(model(**arguments).logits)

    step()  # what is made at the first call is not recorded
    return step if record is None else record(step)


def seconds_of(call: Callable[[], object], device: str, *, repeats: int) -> float:
    """The median of calls that are waited for; launching is part of it, as it is of a service's step."""
    taken = []
    for number in range(WARM_UPS + repeats):
        started = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        if number >= WARM_UPS:
            taken.append(time.perf_counter() - started)
    return median(taken)


def bandwidth_of(device: str, num_bytes: int = COPIED_BYTES) -> float:
    """Bytes read and written a second by a copy."""
    source = torch.ones(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / seconds_of(lambda: target.copy_(source), device, repeats=COPIES)


def measure(
    variant: Variant,
    *,
    shape: dict[str, int],
    num_layers: int,
    batches: Sequence[int],
    past: int,
    repeats: int,
    bandwidth: float,
    device: str,
) -> Iterator[Point]:
    """The points of one variant."""
    model = make_model(shape, num_layers, quantization=variant.quantization, device=device)
    of_weights = weight_bytes(model)
    of_layers = of_weights - model.get_output_embeddings().weight.nbytes
    layout = layout_of(model, 1)
    bank = None
    if variant.has_kernels is not None:
        num_slots = max(1, variant.num_adapters)
        bank = SlotBank(
            model, num_slots=num_slots, max_rank=RANK, dtype=torch.bfloat16, has_kernels=variant.has_kernels
        )
        put_adapters(bank, model, variant.num_adapters)
    for rows in batches:
        in_use = min(rows, variant.num_adapters)
        of_slots = 0
        if bank is not None:
            slots = [row % variant.num_adapters + 1 if variant.num_adapters else 0 for row in range(rows)]
            bank.segments.set(slots, num_tokens=1)
            of_slots = in_use * bank.slot_bytes
        record = cuda_recorder() if variant.is_recorded and device == "cuda" else None
        seconds = seconds_of(step_of(model, layout, rows, past, record), device, repeats=repeats)
        deep = of_layers + of_slots + rows * past * layout.bytes_per_token  # what grows with the number of layers
        full = of_weights - of_layers + deep * LAYERS // num_layers
        yield Point(variant.name, rows, seconds, of_weights - of_layers + deep, full, bandwidth)


def summary(
    points: Sequence[Point], *, device_name: str, bandwidth: float, num_layers: int, past: int
) -> dict[str, Any]:
    """The last line."""
    return {
        "bench": "kernels",
        "device": device_name,
        "bandwidth_gb_per_s": round(bandwidth / 1e9, 1),
        "layers": num_layers,
        "past": past,
        "points": [point.row() for point in points],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and tell; how fast it is is a finding, not a failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels")
    parser.add_argument("--layers", type=int, default=LAYERS, help="of the model; fewer take less time and memory")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 64], help="rows of a step")
    parser.add_argument("--past", type=int, default=120, help="tokens behind each row")
    parser.add_argument("--repeats", type=int, default=20)
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("--variants", nargs="+", choices=names, default=names, metavar="NAME", help="; ".join(names))
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("bench-kernels measures a GPU, and torch finds no CUDA device here: nothing was measured")
        print(json.dumps({"bench": "kernels", "skipped": "no CUDA device"}), flush=True)
        return 0
    bandwidth = bandwidth_of("cuda")
    points = []
    for variant in (each for each in VARIANTS if each.name in options.variants):
        for point in measure(
            variant,
            shape=SHAPE,
            num_layers=options.layers,
            batches=options.batches,
            past=options.past,
            repeats=options.repeats,
            bandwidth=bandwidth,
            device="cuda",
        ):
            points.append(point)
            print("  ".join(f"{name} {value}" for name, value in point.row().items()), flush=True)
        torch.cuda.empty_cache()
    name = torch.cuda.get_device_name()
    told = summary(points, device_name=name, bandwidth=bandwidth, num_layers=options.layers, past=options.past)
    print(json.dumps(told), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
