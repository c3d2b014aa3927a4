"""Attention on a processor, where torch's fused kernel and transformers' way of calling it cost more than they need.

The kernel is made for many queries: with one a row, two batched products and a softmax are quicker, but where wide
heads share keys, so that it has several queries after all. With many, transformers copies keys and values once for each
query head that shares them; the kernel can do without. Layers with a sliding window read what is in it, not all that
the cache holds (docs/performance.md). What this does not know goes to transformers' own attention.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

_NAME = "selfspec"
_FEWEST_ROWS = 4
_WIDE, _MANY = 128, 4  # from this head size, and so many heads a key head, on the kernel is quicker in bfloat16


def install(model: Any) -> None:
    """Let ``model`` attend this way where it can; others stay as they are."""
    if model.device.type == "cpu" and model._can_set_attn_implementation() and _uses_sdpa(model):
        AttentionInterface.register(_NAME, attend)
        AttentionMaskInterface.register(_NAME, sdpa_mask)
        model.set_attn_implementation(_NAME)


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query [rows, heads, new, dim]; key, value [rows, key heads, tokens, dim] → [rows, new, heads, dim]."""
    rows, heads, new, dim = query.shape
    is_plain = attention_mask is None or (attention_mask.dtype is torch.bool and attention_mask.shape[1] == 1)
    is_known = is_plain and not any(kwargs.get(name) is not None for name in _ELSEWHERE)
    if is_known and attention_mask is not None and (window := kwargs.get("sliding_window")) is not None:
        unseen = _unseen(attention_mask, window + new - 1)
        key, value, attention_mask = key[:, :, unseen:], value[:, :, unseen:], attention_mask[..., unseen:]
    if is_known and new > 1 and attention_mask is not None:
        attended = F.scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling, enable_gqa=True)
        return attended.transpose(1, 2).contiguous(), None
    if not is_known or new > 1 or rows < _FEWEST_ROWS:
        outputs: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return outputs
    grouped = query.view(rows, key.shape[1], heads // key.shape[1], dim)  # heads that share keys as queries of one head
    if dim >= _WIDE and grouped.shape[2] >= _MANY and key.dtype is torch.bfloat16:
        mixed = F.scaled_dot_product_attention(grouped, key, value, attention_mask, scale=scaling)
        return mixed.reshape(rows, 1, heads, value.shape[-1]), None
    scaled = grouped * (dim**-0.5 if scaling is None else scaling)
    scores = torch.matmul(key, scaled.transpose(-1, -2)).transpose(-1, -2).contiguous()  # keys first, as they lie
    if attention_mask is not None:
        scores.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)  # no NaN for a row that is all padding
    mixed = torch.matmul(scores.softmax(-1), value)  # [rows, key heads, heads of each, dim]; softmaxed in float32
    return mixed.reshape(rows, 1, heads, value.shape[-1]), None


def _unseen(mask: Tensor, reach: int) -> int:
    """How many of the first tokens no query looks at, if the last ``reach`` are all that any does; else 0.

    Where rows end at the same column that is what the window leaves out; where they do not, the mask tells.
    """
    before = mask.shape[-1] - reach
    return before if before > 0 and not bool(mask[..., :before].any()) else 0


_ELSEWHERE = ("position_bias", "softcap", "s_aux")  # arguments of families that this does not know


def _uses_sdpa(model: Any) -> bool:
    return bool(model.config._attn_implementation == "sdpa")
