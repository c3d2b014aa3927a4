"""Gradient checkpointing: layers computed a second time on the way back, instead of keeping what they computed.

It changes no result: the same numbers are added in the same order. It costs about a third more time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from app.core.errors import InvalidInput, Problem
from app.core.recipe import Recipe
from app.engine.base import LoadedBase
from app.engine.memory import free_bytes
from app.engine.slots import slot_bytes


def activation_bytes(base: LoadedBase, *, tokens: int, longest: int) -> int:
    """An estimate of what one pass over ``tokens`` padded tokens in rows of ``longest`` keeps until its way back.

    Every linear layer's input and output, in the base's dtype, and once more for what lies between them (norms,
    activations, the sides of LoRA); attention's scores and their softmax, a head and layer, as plain matrices; and the
    logits of every token, three times in float32 (as they are, softmaxed, and their gradient). Attention without
    plain matrices and short responses take less.
    """
    config, dtype = base.model.config.get_text_config(), getattr(torch, base.info.dtype)
    linear = slot_bytes(base.model, max_rank=2, dtype=dtype)  # rank 1 is as wide as a layer's input and output
    scores = 2 * config.num_hidden_layers * config.num_attention_heads * longest * dtype.itemsize
    return tokens * int(linear + scores + 3 * 4 * base.num_embeddings)


def recomputes(base: LoadedBase, recipe: Recipe, *, tokens: int, longest: int) -> bool:
    """Whether this training is to compute twice. Raises InvalidInput where that is asked for and cannot be done."""
    wanted = recipe.gradient_checkpointing
    can = next(_layers(base.model), None) is not None
    if wanted == "on" and not can:
        reason = f"the layers of {base.info.name} cannot be computed twice; set off, and a lower micro_batch_tokens"
        raise InvalidInput([Problem("recipe.gradient_checkpointing", reason)])
    if wanted == "auto":
        return can and activation_bytes(base, tokens=tokens, longest=longest) > free_bytes(base.device)
    return wanted == "on"


@contextmanager
def recomputed(model: Any) -> Iterator[None]:
    """Within it, every layer of ``model`` keeps its input alone.

    transformers' own switch would need the layers in training mode, where some drop what no recipe says.
    """
    layers = list(_layers(model))
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _layers(model: Any) -> Iterator[Any]:
    return (module for module in model.modules() if isinstance(module, GradientCheckpointingLayer))
