"""Weights laid out for the processor compute what torch computes, and are refused where they could not be used."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from app.engine.packed import can_pack, pack

pytestmark = pytest.mark.skipif(not can_pack([nn.Linear(2, 2)]), reason="needs a processor with oneDNN")

INPUTS = {
    "one row": torch.randn(1, 24),
    "rows": torch.randn(33, 24),
    "rows of tokens": torch.randn(3, 5, 24),
    "every second": torch.randn(7, 48)[:, ::2],
    "last tokens": torch.randn(4, 6, 24)[:, -1:],
    "half of a wider one": torch.randn(4, 6, 48)[..., 24:],
}
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}


def linear(out: int, *, bias: bool) -> nn.Linear:
    return nn.Linear(24, out, bias=bias)


def conv(out: int) -> Conv1D:
    layer = Conv1D(out, 24)  # type: ignore[no-untyped-call]
    nn.init.normal_(layer.bias)
    return layer


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
def test_layers_beside_each_other_are_each_layer(x: Tensor, dtype: torch.dtype) -> None:
    if not can_pack([nn.Linear(2, 2, dtype=dtype)]):
        pytest.skip(f"this processor has no products of {dtype}")
    x = x.to(dtype)
    layers = [
        each.to(dtype).requires_grad_(False)
        for each in (linear(40, bias=True), linear(8, bias=False), conv(16), linear(1, bias=True))
    ]
    product = pack(layers)
    with torch.inference_mode():
        y = product(x)
        assert y.is_contiguous()
        for part, layer in zip(y.split_with_sizes([40, 8, 16, 1], dim=-1), layers, strict=True):
            torch.testing.assert_close(part, layer(x), atol=TOLERANCE[dtype], rtol=1e-2)


def test_without_bias() -> None:
    layer = linear(40, bias=False)
    x = INPUTS["rows"]
    with torch.inference_mode():
        torch.testing.assert_close(pack([layer])(x), layer(x), atol=1e-4, rtol=1e-5)


class Quantized(nn.Linear):
    """As bitsandbytes' layers, a kind of linear layer with other weights."""


def test_only_plain_layers_of_the_processors_dtypes_are_packed() -> None:
    plain = nn.Linear(2, 2)
    assert can_pack([plain, conv(2)])
    assert not can_pack([plain, Quantized(2, 2)])
    assert not can_pack([plain, nn.Linear(2, 2, dtype=torch.float16)])
    assert not can_pack([plain, nn.Linear(2, 2, device="meta")])


def test_a_base_that_leaves_too_little_memory_is_not_packed() -> None:
    assert not can_pack([nn.Linear(2, 2)], num_free=32)
    assert can_pack([nn.Linear(2, 2)], num_free=10**6)
