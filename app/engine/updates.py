"""What adapters add to the base's products, (x A[slot]) B[slot], each row of a batch with its own slot.

Knows rows, slots and matrices; nothing of models, files or of who sits in a slot. ``apply_updates`` is the seam: plain
torch, or, where a batch comes with tiles, the kernels, which give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from app.engine.packed import Product, pack_matrix
from app.engine.tiles import Tiles

_JOINT_BELOW = 10_000_000  # multiply-adds of a member's products that zeros may be added to for fewer calls
_PATIENCE = 16  # uses of a stack before it is packed; what that costs is earned back in about five
Run = tuple[int, int, int, int]  # slot, its rank, first row, row after the last


@dataclass(slots=True)
class Stack:
    """A group's matrices of several slots beside each other, K being the sum of their ranks."""

    a: Tensor  # [members · K, in]
    b: tuple[Tensor, ...]  # [K, out] a member
    patience: int = 0  # uses after which it is packed; 0: never is
    _shrink: Product | None = None  # [places, in] → [places, members · K]
    _expand: Product | None = None  # [places, members · K] → [places, outs], for all members at once

    def add_to(self, y: Sequence[Tensor], x: Tensor, *, whole: Tensor | None, mask: Tensor) -> None:
        """``mask`` [places, members · K] is True where a column is none of the place's; the rest as apply_updates."""
        self.patience -= 1
        if self.patience == 0:
            self._pack(len(x))
        h = F.linear(x, self.a) if self._shrink is None else self._shrink(x)
        h.masked_fill_(mask, 0)
        if self._expand is not None and whole is not None:
            whole.add_(self._expand(h))
            return
        for part, of_part, b in zip(y, h.chunk(len(y), dim=1), self.b, strict=True):
            part.addmm_(of_part, b)

    def _pack(self, places: int) -> None:
        """Fewer and faster calls, for about two hundred microseconds once."""
        self._shrink = pack_matrix(self.a)
        width, outs = len(self.b[0]), sum(b.shape[1] for b in self.b)
        if places * width * outs < _JOINT_BELOW:
            self._expand = pack_matrix(torch.block_diag(*self.b).T)  # type: ignore[no-untyped-call]


class SlotStore:
    """All slots of all groups of one shape. A group: layers (its members) that read the same tensor."""

    def __init__(
        self,
        num_groups: int,
        *,
        in_features: int,
        outs: Sequence[int],
        num_slots: int,
        max_rank: int,
        dtype: torch.dtype,
        device: torch.device,
        is_packed: bool = False,
    ) -> None:
        """``outs``: a group's members' numbers of outputs. Slots count from 1; 0 is the bare base and has no place.

        ``is_packed``: stacks that last are laid out as packed weights are, which pays in bfloat16 only (measured).
        """

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.outs = tuple(outs)
        self._is_packed = is_packed and dtype == torch.bfloat16
        self.a = zeros(num_groups, len(outs), num_slots, max_rank, in_features)
        self.whole_b = zeros(num_groups, num_slots, max_rank, sum(outs))
        self.b = self.whole_b.split_with_sizes(self.outs, dim=-1)  # [groups, slots, max rank, out] a member
        self.ranks = torch.zeros(num_groups, len(outs), num_slots, dtype=torch.int32, device=device)  # of matrices
        self.touched: dict[int, set[int]] = {}  # slot → groups in which its adapter has matrices
        self.stacks: list[Stack | None] = [None] * num_groups

    @property
    def num_bytes(self) -> int:
        return self.a.nbytes + self.whole_b.nbytes

    def places(self, group: int, member: int, slot: int, rank: int) -> tuple[Tensor, Tensor]:
        """Where a layer's matrices of ``rank`` go: A [r, in], B [r, out]."""
        return self.a[group, member, slot - 1, :rank], self.b[member][group, slot - 1, :rank]

    def empty(self, slot: int) -> None:
        """Zeros wherever the slot's next adapter may not write."""
        self.a[:, :, slot - 1].zero_()
        self.whole_b[:, slot - 1].zero_()

    def stack(self, slots: Sequence[tuple[int, int]]) -> None:
        """Renew the stacks for (slot, rank) pairs."""
        a = torch.cat([self.a[:, :, slot - 1, :rank] for slot, rank in slots], dim=2)  # [groups, members, K, in]
        b = [torch.cat([part[:, slot - 1, :rank] for slot, rank in slots], dim=1) for part in self.b]
        touched = set().union(*(self.touched.get(slot, ()) for slot, _ in slots))
        for group, of_group in enumerate(a):
            patience = _PATIENCE + group % _PATIENCE if self._is_packed else 0  # not all in one step
            stack = Stack(of_group.flatten(0, 1), tuple(part[group] for part in b), patience)
            self.stacks[group] = stack if group in touched else None


@dataclass(slots=True)
class Batch:
    """The rows in flight that belong to an adapter, in one of three ways of computing them.

    With a mask: all rows at once with the stacks, each row then keeping only what its own slot's columns gave (exactly
    zero elsewhere, whatever another adapter made of it). With tiles: by kernels. With neither: run by run, which
    multiplies nothing in vain.
    """

    num_rows: int
    num_tokens: int  # of each row, padding included
    runs: Sequence[Run]
    mask: Tensor | None = None  # [rows · tokens, K], True where a column is none of the row's
    tiles: Tiles | None = None
    _repeated: dict[int, Tensor] = field(default_factory=dict)

    def mask_for(self, members: int) -> Tensor:
        """[rows · tokens, members · K]."""
        assert self.mask is not None
        if members not in self._repeated:
            self._repeated[members] = self.mask.repeat(1, members)
        return self._repeated[members]


def apply_updates(
    y: Sequence[Tensor], x: Tensor, *, whole: Tensor | None, store: SlotStore, group: int, batch: Batch
) -> None:
    """Add to ``y`` ([places, out] a member), in place, what the rows' adapters make of ``x`` [places, in].

    A place is one token of one row, rows one after the other. ``whole`` [places, outs] is the memory of ``y`` where its
    parts are neighbours.
    """
    if batch.tiles is not None:
        from app.engine.kernels.grouped import add_updates  # Triton's, which not every machine has

        a, b, ranks = store.a[group], store.whole_b[group], store.ranks[group]
        add_updates(y, x, whole=whole, a=a, b=b, ranks=ranks, tiles=batch.tiles)
        return
    if batch.mask is not None and len(batch.mask) == len(x):
        if (stack := store.stacks[group]) is not None:
            stack.add_to(y, x, whole=whole, mask=batch.mask_for(len(y)))
        return
    tokens = len(x) // batch.num_rows
    for slot, rank, start, end in batch.runs:
        if group in store.touched[slot]:
            rows = slice(start * tokens, end * tokens)
            pairs = [store.places(group, member, slot, rank) for member in range(len(y))]
            h = F.linear(x[rows], torch.cat([a for a, _ in pairs]))  # [places, members · r]
            for part, of_part, (_, b) in zip(y, h.chunk(len(y), dim=1), pairs, strict=True):
                part[rows].addmm_(of_part, b)
