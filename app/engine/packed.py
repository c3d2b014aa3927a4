"""The base's weights laid out once for the processor's matrix products: half the time in float32, less in bfloat16.

A second copy beside the weights as loaded, which stay for training (no gradient passes a packed layer). Where the
processor, the dtype or the memory does not allow it, nothing is packed and torch multiplies as usual.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from app.engine.memory import free_bytes

Product = Callable[[Tensor], Tensor]  # [..., in] → [..., outs]
_ROWS = 32  # what the layout is chosen for; measured: 8 to 512 are alike for any number of rows, 1 is slower
_MEMORY_SHARE = 0.25  # of the free memory; a copy beyond that is not worth it

_MOST_KEPT = "256"  # compiled products, of all numbers of rows and shapes; making one anew takes about a millisecond
for _cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):  # read at the process's first product;
    os.environ.setdefault(_cache, _MOST_KEPT)  # at their default, 1024, they come to take a gigabyte


def can_pack(layers: Iterable[nn.Module], *, num_free: int | None = None) -> bool:
    """Whether all are plain linear layers (quantized ones are not) and processor, its library and memory allow it.

    ``num_free``: bytes of memory that may be shared in; None: what is free now.
    """
    weights = [getattr(layer, "weight", None) if type(layer) in (nn.Linear, Conv1D) else None for layer in layers]
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and all(each is not None and each.device.type == "cpu" and _is_known(each.dtype) for each in weights)
        and sum(each.nbytes for each in weights if each is not None)
        < _MEMORY_SHARE * (free_bytes() if num_free is None else num_free)
    )


def _is_known(dtype: torch.dtype) -> bool:
    """bfloat16 needs instructions that not every processor has."""
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


@torch.no_grad()
def pack(layers: Sequence[nn.Linear | Conv1D]) -> Product:
    """One product for layers that read the same: [..., in] → [..., the outputs of each, beside each other].

    Exact but for the order of sums. Takes any strides; gives a contiguous tensor.
    """
    weights = [layer.weight if isinstance(layer, nn.Linear) else layer.weight.T for layer in layers]  # [out, in] each
    biases = [layer.bias for layer in layers]
    bias = None
    if any(part is not None for part in biases):
        parts = zip(weights, biases, strict=True)
        bias = torch.cat([weight.new_zeros(len(weight)) if part is None else part for weight, part in parts])
    return pack_matrix(torch.cat(weights), bias)


def pack_matrix(weight: Tensor, bias: Tensor | None = None) -> Product:
    """``weight`` [out, in], on a processor where ``can_pack`` holds."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS)
    return partial(_multiply, packed, bias)


def _multiply(packed: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], None)
    return y
