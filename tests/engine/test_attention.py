"""Attention on a processor against its definition, and what a layer with a sliding window reads."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from app.engine.attention import attend

WINDOW = 8
SHAPES = [(6, 9, 3, 16), (6, 4, 1, 256), (6, 8, 2, 128), (2, 8, 2, 128), (6, 4, 4, 32)]  # rows, heads, key heads, dim


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("new", [1, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_heads_that_share_keys_mix_what_the_mask_lets_them_see(
    shape: tuple[int, int, int, int], new: int, dtype: torch.dtype
) -> None:
    query, key, value = _tensors(shape, new=new, tokens=40, dtype=dtype)
    mask = _causal(shape[0], new, 40)
    mask[1, :, :, :30] = False  # a short row

    mixed, _ = attend(_Layer(shape[1] // shape[2]), query, key, value, mask, scaling=0.2)

    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    torch.testing.assert_close(mixed.float(), _defined(query, key, value, mask, 0.2), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("new", [1, 3])
def test_a_sliding_layer_reads_nothing_before_its_window(new: int) -> None:
    query, key, value = _tensors((6, 4, 1, 32), new=new, tokens=40, dtype=torch.float32)
    mask = _causal(6, new, 40, window=WINDOW)
    expected = _defined(query, key, value, mask, 0.2)
    before = 40 - (WINDOW + new - 1)
    key[:, :, :before] = value[:, :, :before] = math.nan  # whoever reads it has no number any more

    mixed, _ = attend(_Layer(4), query, key, value, mask, scaling=0.2, sliding_window=WINDOW)

    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-5)


def test_rows_that_end_at_different_columns_see_their_own_windows() -> None:
    query, key, value = _tensors((6, 4, 1, 32), new=1, tokens=40, dtype=torch.float32)
    mask = torch.zeros(6, 1, 1, 40, dtype=torch.bool)
    for row in range(6):
        mask[row, :, :, 4 * row : 4 * row + WINDOW] = True

    mixed, _ = attend(_Layer(4), query, key, value, mask, scaling=0.2, sliding_window=WINDOW)

    torch.testing.assert_close(mixed, _defined(query, key, value, mask, 0.2), atol=1e-5, rtol=1e-5)


class _Layer:
    """What the kernel's own way asks of the layer that attends."""

    is_causal = True

    def __init__(self, num_key_value_groups: int) -> None:
        self.num_key_value_groups = num_key_value_groups


def _tensors(
    shape: tuple[int, int, int, int], *, new: int, tokens: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values are a part of a larger storage, as those of a batch are."""
    rows, heads, key_heads, dim = shape
    chance = torch.Generator().manual_seed(0)
    storage = torch.randn(2, rows + 1, key_heads, tokens + 9, dim, generator=chance).to(dtype)
    key, value = storage[:, :rows, :, 4 : 4 + tokens]
    return torch.randn(rows, heads, new, dim, generator=chance).to(dtype), key, value


def _causal(rows: int, new: int, tokens: int, *, window: int | None = None) -> Tensor:
    """[rows, 1, new, tokens]: the last query stands at the last token."""
    distance = torch.arange(tokens - new, tokens)[:, None] - torch.arange(tokens)
    seen = (distance >= 0) & (distance < (window or tokens))
    return seen.expand(rows, 1, new, tokens).clone()


def _defined(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """Softmax of the scaled products over what is seen, in float32: [rows, new, heads, dim]."""
    groups = query.shape[1] // key.shape[1]
    keys, values = (tensor.float().repeat_interleave(groups, dim=1) for tensor in (key, value))
    scores = (query.float() @ keys.transpose(-1, -2)) * scaling
    weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
    return (weights @ values).transpose(1, 2)
