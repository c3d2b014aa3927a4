"""Attention on a processor, where torch's fused kernel and transformers' way of calling it cost more than they need.

The kernel is made for many queries: with one a row, two batched products and a softmax take half its time. With many,
transformers copies keys and values once for each query head that shares them; the kernel can do without
(docs/performance.md). What this does not know goes to transformers' own attention.
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
    if is_known and new > 1 and attention_mask is not None:
        attended = F.scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling, enable_gqa=True)
        return attended.transpose(1, 2).contiguous(), None
    if not is_known or new > 1 or rows < _FEWEST_ROWS:
        outputs: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return outputs
    scaled = query.view(rows, key.shape[1], heads // key.shape[1], dim) * (dim**-0.5 if scaling is None else scaling)
    scores = torch.matmul(key, scaled.transpose(-1, -2)).transpose(-1, -2).float()  # keys first: what lies in memory
    if attention_mask is not None:
        scores.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)  # no NaN for a row that is all padding
    mixed = torch.matmul(scores.softmax(-1).to(value.dtype), value)  # [rows, key heads, heads of each, dim]
    return mixed.reshape(rows, 1, heads, value.shape[-1]), None


_ELSEWHERE = ("position_bias", "softcap", "s_aux")  # arguments of families that this does not know


def _uses_sdpa(model: Any) -> bool:
    return bool(model.config._attn_implementation == "sdpa")
