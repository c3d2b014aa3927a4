"""LoRA slots: every linear layer of the base carries stacked A and B matrices, and each row of a batch names its slot.

y = W x + (x A[slot]) B[slot], slot 0 being the bare base. One forward pass serves any mix of experts, in any order of
rows; writing a slot changes nothing for rows that use another. No merging, no global "active adapter".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from app.core.errors import AdapterRefused
from app.engine.kernels import can_run_kernels
from app.engine.packed import can_pack, pack
from app.engine.segments import Segments as Segments
from app.engine.shared_inputs import SharedInput, shared_inputs
from app.engine.tiles import Tiler
from app.engine.updates import SlotStore

_LINEAR = (nn.Linear, Conv1D)  # Conv1D is a linear layer with its weight the other way round (GPT-2)


@dataclass(frozen=True, slots=True)
class LoraPair:
    """One layer's update: ``a`` [in, r], ``b`` [r, out], the scaling already in ``b``."""

    a: Tensor
    b: Tensor


class SlotLinear(nn.Module):
    """Stands in a linear layer's place; the base's own layer is untouched."""

    def __init__(self, shared: SharedInput, member: int) -> None:
        super().__init__()
        self.base = shared.layers[member]
        self.in_features, self.out_features = _features(self.base)
        self.shared, self.member = shared, member

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.shared.output(self.member, x)


def linear_layers(model: Any) -> dict[str, nn.Linear | Conv1D]:
    """Every linear layer by its full name, the output head excepted (as PEFT's ``all-linear`` chooses them)."""
    head = model.get_output_embeddings()
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, _LINEAR) and layer is not head}


def slot_bytes(model: Any, *, max_rank: int, dtype: torch.dtype) -> int:
    """What one slot of so many ranks takes on the device of ``model``."""
    return sum(sum(_features(layer)) for layer in linear_layers(model).values()) * max_rank * dtype.itemsize


def _features(layer: nn.Linear | Conv1D) -> tuple[int, int]:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.nx, layer.nf


@dataclass(frozen=True, slots=True)
class _Shape:
    """Groups of one shape have their slots in one store."""

    in_features: int
    outs: tuple[int, ...]
    device: torch.device

    @classmethod
    def of(cls, group: Sequence[nn.Linear | Conv1D]) -> _Shape:
        return cls(_features(group[0])[0], tuple(_features(layer)[1] for layer in group), group[0].weight.device)


class SlotBank:
    """All slots of one model; also its weights as the device multiplies them fastest."""

    def __init__(
        self, model: Any, *, num_slots: int, max_rank: int, dtype: torch.dtype, has_kernels: bool | None = None
    ) -> None:
        """``has_kernels``: use those written in Triton; None: where they give the right numbers on the device."""
        self.max_rank, self.num_slots = max_rank, num_slots
        self._model, self._head = model, model.get_output_embeddings()
        layers = linear_layers(model)
        groups = shared_inputs(model, layers)
        shapes = [_Shape.of([layers[name] for name in names]) for names in groups]
        if has_kernels is None:
            has_kernels = can_run_kernels(self._head.weight.device, dtype)
        is_packed = not has_kernels and can_pack([*layers.values(), self._head])
        stores = {
            shape: SlotStore(
                shapes.count(shape),
                in_features=shape.in_features,
                outs=shape.outs,
                num_slots=num_slots,
                max_rank=max_rank,
                dtype=dtype,
                device=shape.device,
                is_packed=is_packed,
            )
            for shape in dict.fromkeys(shapes)
        }
        self._stores = [*stores.values()]
        tiler = Tiler(num_slots, self._stores[0].a.device) if has_kernels and self._stores else None
        self.segments = Segments(self._stores, num_slots, tiler=tiler)
        self._packed_head = pack([self._head]) if is_packed else None
        self._layers: dict[str, SlotLinear] = {}
        for number, (names, shape) in enumerate(zip(groups, shapes, strict=True)):
            shared = SharedInput(
                [layers[name] for name in names],
                store=stores[shape],
                group=shapes[:number].count(shape),
                segments=self.segments,
                is_packed=is_packed,
                has_kernels=has_kernels,
            )
            self._layers |= {name: SlotLinear(shared, member) for member, name in enumerate(names)}
        self._install()

    @property
    def slot_bytes(self) -> int:
        """What one slot takes on the device."""
        return sum(store.num_bytes for store in self._stores) // self.num_slots

    def check(self, pairs: Mapping[str, LoraPair]) -> None:
        """Raise AdapterRefused unless every matrix fits its layer."""
        for name, pair in pairs.items():
            layer = self._layers.get(name)
            if layer is None:
                raise AdapterRefused(self._no_layer(name), param="adapter")
            rank, wanted = pair.a.shape[1], (layer.in_features, layer.out_features)
            if (pair.a.shape[0], pair.b.shape[1]) != wanted or pair.b.shape[0] != rank:
                shapes = f"A {tuple(pair.a.shape)}, B {tuple(pair.b.shape)}"
                raise AdapterRefused(f"layer {name!r} is {wanted}, but the adapter has {shapes}", param="adapter")
            if rank > self.max_rank:
                raise AdapterRefused(
                    f"rank {rank} is above SELFSPEC_MAX_LORA_RANK ({self.max_rank}); raise it and restart",
                    param="adapter",
                )

    @torch.inference_mode()
    def write(self, slot: int, pairs: Mapping[str, LoraPair]) -> None:
        """Put an adapter into ``slot``; layers it does not touch are emptied. Checked whole before the first write."""
        self.check(pairs)
        ranks = {pair.a.shape[1] for pair in pairs.values()}
        if len(ranks) > 1 or len(pairs) < len(self._layers):
            for store in self._stores:
                store.empty(slot)
        for store in self._stores:
            store.touched[slot] = set()
        self._write_ranks(slot, pairs)
        places: list[Tensor] = []
        matrices: list[Tensor] = []
        for name, pair in pairs.items():
            shared, member = self._layers[name].shared, self._layers[name].member
            places += shared.store.places(shared.group, member, slot, pair.a.shape[1])
            matrices += [pair.a.T, pair.b]
            shared.store.touched[slot].add(shared.group)
        torch._foreach_copy_(places, matrices, non_blocking=True)
        self.segments.changed(slot, max(ranks, default=0))

    def _write_ranks(self, slot: int, pairs: Mapping[str, LoraPair]) -> None:
        ranks = {id(store): torch.zeros(store.ranks.shape[:2], dtype=torch.int32) for store in self._stores}
        for name, pair in pairs.items():
            shared, member = self._layers[name].shared, self._layers[name].member
            ranks[id(shared.store)][shared.group, member] = pair.a.shape[1]
        for store in self._stores:
            store.ranks[:, :, slot - 1] = ranks[id(store)].to(store.ranks.device)

    def clear(self, slot: int) -> None:
        """Empty ``slot``: its rows would compute the bare base."""
        self.segments.changed(slot, 0)

    @contextmanager
    def removed(self) -> Iterator[None]:
        """The model with its own layers, for training; the slots come back as they were."""
        for name, layer in self._layers.items():
            _replace(self._model, name, layer.base)
        vars(self._head).pop("forward", None)
        try:
            yield
        finally:
            self._install()

    def _install(self) -> None:
        for name, layer in self._layers.items():
            _replace(self._model, name, layer)
        if self._packed_head is not None:
            self._head.forward = self._packed_head  # the head's module stays, and with it who holds or hooks it

    def _no_layer(self, name: str) -> str:
        if dict(self._model.named_modules()).get(name) is self._head:
            return f"LoRA on the output head {name!r} is not supported; train it with target_modules='all-linear'"
        return f"the base has no linear layer {name!r}: made for another base?"


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)
