"""Layers that read the same as one matrix, for GPUs: one call for all, where each call costs more than its product.

No copy: the layers' weights become views of the joined one, in which training finds them unchanged. A 4-bit matrix is
multiplied without being written out where that was faster on this device; else as bitsandbytes does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from bitsandbytes.autograd._functions import matmul_4bit
from bitsandbytes.functional import QuantState, dequantize_blockwise
from bitsandbytes.nn.modules import Linear4bit
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from app.engine.kernels.contest import rounded_up, ways_won
from app.engine.packed import Product

_BLOCK = 64  # weights that share a scale


def join(layers: Sequence[nn.Linear | Conv1D]) -> Product | None:
    """[…, in] → […, the outputs of each, beside each other]; None where nothing is gained or known."""
    if all(is_nf4(layer) for layer in layers):
        return _join_nf4(layers)
    if len(layers) > 1 and all(type(layer) is nn.Linear for layer in layers):
        return partial(F.linear, weight=_join_weights(layers), bias=join_biases(layers))
    return None


def is_nf4(layer: Any) -> bool:
    """Whether a layer's weights are those of ``Nf4Matrix``: whole blocks, bytes and float32 scales of blocks of 256."""
    state = getattr(getattr(layer, "weight", None), "quant_state", None)
    return (
        isinstance(layer, Linear4bit)
        and state is not None
        and not getattr(state, "packing_format_for_cpu", False)
        and (state.quant_type, state.blocksize) == ("nf4", _BLOCK)
        and layer.weight.dtype == torch.uint8
        and layer.in_features % _BLOCK == 0
    )


class Nf4Matrix:
    """4-bit layers as one. Their scales are kept as float32, half a bit a weight, beside what bitsandbytes keeps."""

    def __init__(self, layers: Sequence[Any], *, bias: Tensor | None) -> None:
        first = layers[0]
        self.packed = _join_weights(layers)  # [outs · in / 2, 1]
        self.in_features, self.outs = first.in_features, sum(layer.out_features for layer in layers)
        self.scales = torch.cat([_scales(layer.weight.quant_state) for layer in layers])  # [blocks], row by row
        self.code = first.weight.quant_state.code.float()
        self.dtype = first.compute_dtype or first.weight.quant_state.dtype
        self.bias = None if bias is None else bias.to(self.dtype)
        self.state = QuantState(  # type: ignore[no-untyped-call]
            absmax=self.scales,
            shape=torch.Size((self.outs, self.in_features)),
            code=self.code,
            blocksize=_BLOCK,
            quant_type="nf4",
            dtype=self.dtype,
        )

    @property
    def ways(self) -> Mapping[str, Product]:
        """Our kernels, by name: x [rows, in] of the matrix's dtype, few rows → [rows, outs]."""
        from app.engine.kernels.nf4 import nf4_product, nf4_product_of_words  # Triton's, which not every machine has

        known = {"scales": self.scales.view(self.outs, -1), "code": self.code, "bias": self.bias}
        return {
            "bytes": partial(nf4_product, packed=self.packed, **known),
            "words": partial(nf4_product_of_words, packed=self.packed, block_out=64, **known),
            "words, narrow": partial(nf4_product_of_words, packed=self.packed, block_out=32, **known),
        }

    def stock(self, x: Tensor) -> Tensor:
        """The same for any number of rows, by bitsandbytes."""
        y: Tensor = matmul_4bit(x, self.packed.t(), quant_state=self.state, bias=self.bias)
        return y

    def multiply(self, won: Mapping[int, Product], x: Tensor) -> Tensor:
        """[…, in] → […, outs]; ``won``: the kernels of ours that are used, by number of rows, rounded up."""
        flat = x.reshape(-1, self.in_features).to(self.dtype)
        y = won.get(rounded_up(len(flat)), self.stock)(flat)
        return y.to(x.dtype).view(*x.shape[:-1], self.outs)


def _join_nf4(layers: Sequence[Any]) -> Product:
    matrix = Nf4Matrix(layers, bias=join_biases(layers))
    ways = matrix.ways
    return partial(matrix.multiply, {rows: ways[name] for rows, name in ways_won(matrix).items()})


def _scales(state: Any) -> Tensor:
    """As bitsandbytes reckons them, [blocks] float32: they are quantized themselves, less their mean."""
    if not state.nested:
        return torch.as_tensor(state.absmax.float())
    return torch.as_tensor(dequantize_blockwise(state.absmax, state.state2).float() + state.offset)


@torch.no_grad()
def _join_weights(layers: Sequence[Any]) -> Tensor:
    """One tensor with the weights of all one after the other; each layer's own is a view of it from now on."""
    weights = [layer.weight.data for layer in layers]
    if len(weights) == 1:
        return torch.as_tensor(weights[0])
    whole = torch.cat(weights)
    for layer, part in zip(layers, whole.split_with_sizes([len(weight) for weight in weights]), strict=True):
        layer.weight.data = part
    return whole


def join_biases(layers: Sequence[Any]) -> Tensor | None:
    """One after the other, zeros for those without; None if none has one."""
    if all(layer.bias is None for layer in layers):
        return None
    known = next(layer.bias for layer in layers if layer.bias is not None)
    return torch.cat([known.new_zeros(layer.out_features) if layer.bias is None else layer.bias for layer in layers])
