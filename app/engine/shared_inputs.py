"""Linear layers that read the same tensor (q, k and v; gate and up), found by watching a model run, computed together.

Knows nothing of any architecture. A layer it cannot place stands alone, which is slower and never wrong.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from app.core.errors import AdapterRefused
from app.engine.joined import join
from app.engine.packed import Product, pack
from app.engine.segments import Segments
from app.engine.updates import Batch, SlotStore, apply_updates

log = logging.getLogger(__name__)

_Call = tuple[str, Tensor, int]  # layer, its input, how often that had been written to


def shared_inputs(model: Any, layers: Mapping[str, nn.Module]) -> list[list[str]]:
    """All names of ``layers``: those called one after the other with the same unchanged tensor together, in order."""
    calls = _watch(model, layers)
    times = Counter(name for name, _, _ in calls)
    groups: list[list[str]] = []
    last: _Call | None = None
    for name, x, version in calls:
        if times[name] == 1:
            if last is not None and last[1] is x and last[2] == version:
                groups[-1].append(name)
            else:
                groups.append([name])
        last = (name, x, version) if times[name] == 1 else None
    return groups + [[name] for name in layers if times[name] != 1]


def _watch(model: Any, layers: Mapping[str, nn.Module]) -> list[_Call]:
    """Every call of a layer in a forward pass of two tokens, in order."""
    calls: list[_Call] = []

    def note(name: str, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        calls.append((name, inputs[0], inputs[0]._version))

    hooks = [layer.register_forward_pre_hook(partial(note, name)) for name, layer in layers.items()]
    try:
        with torch.inference_mode(False), torch.no_grad():
            model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=model.device), use_cache=False)
    except Exception as error:
        log.warning("linear layers are computed one by one: the base did not run on two tokens: %s", error)
        return []
    finally:
        for hook in hooks:
            hook.remove()
    return calls


class SharedInput:
    """Layers of the base with the same input: the first one called computes for all, the others take their part."""

    def __init__(
        self,
        layers: Sequence[nn.Linear | Conv1D],
        *,
        store: SlotStore,
        group: int,
        segments: Segments,
        is_packed: bool,
        has_kernels: bool = False,
    ) -> None:
        """``is_packed``: a processor's layout of the weights; ``has_kernels``: a GPU's products for all at once."""
        self.layers, self.store, self.group = layers, store, group
        self._segments = segments
        self._product: Product | None = pack(layers) if is_packed else join(layers) if has_kernels else None
        self._input: Tensor | None = None
        self._generation = 0
        self._parts: dict[int, Tensor] = {}

    def output(self, member: int, x: Tensor) -> Tensor:
        """The member's output, [rows, tokens, in] or [rows · tokens, in] → […, out]."""
        is_known = x is self._input and self._generation == self._segments.generation and member in self._parts
        if not is_known:
            self._input, self._generation = x, self._segments.generation
            self._parts = dict(enumerate(self._compute(x)))
        part = self._parts.pop(member)  # given once: who has it may write into it
        if not self._parts:
            self._input = None
        return part

    def _compute(self, x: Tensor) -> Sequence[Tensor]:
        outs = self.store.outs
        whole = self._product(x) if self._product is not None else None  # […, outs]
        parts = [layer(x) for layer in self.layers] if whole is None else whole.split_with_sizes(outs, dim=-1)
        if (batch := self._segments.batch) is not None:
            _check_rows(x, batch)
            together = parts[0] if len(parts) == 1 else whole
            flat = None if together is None else together.view(-1, sum(outs))
            places = [part.view(-1, out) for part, out in zip(parts, outs, strict=True)]
            apply_updates(
                places, x.reshape(-1, x.shape[-1]), whole=flat, store=self.store, group=self.group, batch=batch
            )
        return parts


def _check_rows(x: Tensor, batch: Batch) -> None:
    """Raise AdapterRefused where places cannot be told apart by row (tokens sent to experts each on their own)."""
    rows, tokens = batch.num_rows, batch.num_tokens
    if x.ndim not in (2, 3) or len(x) != (rows if x.ndim == 3 else rows * tokens):
        shape = tuple(x.shape)
        raise AdapterRefused(f"a layer of the base mixes the rows of a batch: {rows} by {tokens} became {shape}")
