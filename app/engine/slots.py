"""LoRA slots: every linear layer of the base carries stacked A and B matrices, and each row of a batch names its slot.

y = W x + (x A[slot]) B[slot], slot 0 being the bare base. One forward pass serves any mix of experts; writing a slot
changes nothing for rows that use another. No merging, no global "active adapter".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from app.core.errors import AdapterRefused

_LINEAR = (nn.Linear, Conv1D)  # Conv1D is a linear layer with its weight the other way round (GPT-2)


@dataclass(frozen=True, slots=True)
class LoraPair:
    """One layer's update: ``a`` [in, r], ``b`` [r, out], the scaling already in ``b``."""

    a: Tensor
    b: Tensor


@dataclass(slots=True)
class Segments:
    """Which rows of the batch in flight belong to which slot: (slot, first row, row after the last)."""

    rows: list[tuple[int, int, int]] = field(default_factory=list)
    num_rows: int = 0
    num_tokens: int = 0  # of each row, padding included

    def set(self, slots: Sequence[int], *, num_tokens: int) -> None:
        """``slots`` of the rows in order; neighbours of one slot become one segment, the base's need none."""
        self.rows, self.num_rows, self.num_tokens = [], len(slots), num_tokens
        for row, slot in enumerate(slots):
            if self.rows and self.rows[-1][0] == slot:
                self.rows[-1] = (slot, self.rows[-1][1], row + 1)
            else:
                self.rows.append((slot, row, row + 1))
        self.rows = [segment for segment in self.rows if segment[0] != 0]


class SlotLinear(nn.Module):
    """A linear layer of the base with its slots beside it; the base's own layer is untouched."""

    def __init__(
        self, base: nn.Linear | Conv1D, *, num_slots: int, max_rank: int, dtype: torch.dtype, segments: Segments
    ) -> None:
        super().__init__()
        self.base = base
        self.in_features, self.out_features = _features(base)
        device = base.weight.device
        self.a = torch.zeros(num_slots + 1, self.in_features, max_rank, dtype=dtype, device=device)
        self.b = torch.zeros(num_slots + 1, max_rank, self.out_features, dtype=dtype, device=device)
        self._ranks = [0] * (num_slots + 1)
        self._segments = segments

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:  # [rows, tokens, in] or [rows · tokens, in] → […, out]
        y: Tensor = self.base(x)
        if self._segments.rows:
            scale = self._places_a_row(x)
            for slot, start, end in self._segments.rows:
                rank = self._ranks[slot]
                if rank:
                    rows = slice(start * scale, end * scale)
                    y[rows] += (x[rows] @ self.a[slot, :, :rank]) @ self.b[slot, :rank]
        return y

    def _places_a_row(self, x: Tensor) -> int:
        """How many places of x's first dimension a row of the batch takes: some architectures flatten rows and tokens.

        Raises AdapterRefused where places cannot be told apart by row (tokens sent to experts each on their own).
        """
        rows, tokens = self._segments.num_rows, self._segments.num_tokens
        if x.ndim == 3 and x.shape[0] == rows:
            return 1
        if x.ndim == 2 and x.shape[0] == rows * tokens:
            return tokens
        shape = tuple(x.shape)
        raise AdapterRefused(f"a layer of the base mixes the rows of a batch: {rows} by {tokens} became {shape}")

    def write(self, slot: int, pair: LoraPair | None) -> None:
        """Fill a slot, or empty it with None."""
        if pair is None:
            self._ranks[slot] = 0
            return
        rank = pair.a.shape[1]
        self.a[slot, :, :rank] = pair.a.to(self.a)
        self.b[slot, :rank] = pair.b.to(self.b)
        self._ranks[slot] = rank


def linear_layers(model: Any) -> dict[str, nn.Linear | Conv1D]:
    """Every linear layer by its full name, the output head excepted (as PEFT's ``all-linear`` chooses them)."""
    head = model.get_output_embeddings()
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, _LINEAR) and layer is not head}


def _features(layer: nn.Linear | Conv1D) -> tuple[int, int]:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.nx, layer.nf


class SlotBank:
    """All slots of one model."""

    def __init__(self, model: Any, *, num_slots: int, max_rank: int, dtype: torch.dtype) -> None:
        self.segments = Segments()
        self.max_rank = max_rank
        self._model = model
        self._layers = {
            name: SlotLinear(layer, num_slots=num_slots, max_rank=max_rank, dtype=dtype, segments=self.segments)
            for name, layer in linear_layers(model).items()
        }
        self._install()

    def check(self, pairs: Mapping[str, LoraPair]) -> None:
        """Raise AdapterRefused unless every matrix fits its layer."""
        for name, pair in pairs.items():
            layer = self._layers.get(name)
            if layer is None:
                raise AdapterRefused(f"the base has no linear layer {name!r}: made for another base?", param="adapter")
            rank, wanted = pair.a.shape[1], (layer.in_features, layer.out_features)
            if (pair.a.shape[0], pair.b.shape[1]) != wanted or pair.b.shape[0] != rank:
                shapes = f"A {tuple(pair.a.shape)}, B {tuple(pair.b.shape)}"
                raise AdapterRefused(f"layer {name!r} is {wanted}, but the adapter has {shapes}", param="adapter")
            if rank > self.max_rank:
                raise AdapterRefused(
                    f"rank {rank} is above SELFSPEC_MAX_LORA_RANK ({self.max_rank}); raise it and restart",
                    param="adapter",
                )

    def write(self, slot: int, pairs: Mapping[str, LoraPair]) -> None:
        """Put an adapter into ``slot``; layers it does not touch are emptied. Checked whole before the first write."""
        self.check(pairs)
        for name, layer in self._layers.items():
            layer.write(slot, pairs.get(name))

    def clear(self, slot: int) -> None:
        """Empty ``slot``: its rows would compute the bare base."""
        for layer in self._layers.values():
            layer.write(slot, None)

    @contextmanager
    def removed(self) -> Iterator[None]:
        """The model with its own layers, for training; the slots come back as they were."""
        for name, layer in self._layers.items():
            _replace(self._model, name, layer.base)
        try:
            yield
        finally:
            self._install()

    def _install(self) -> None:
        for name, layer in self._layers.items():
            _replace(self._model, name, layer)


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)
