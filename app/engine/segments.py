"""Which row of the batch in flight belongs to which slot, and how its updates are computed best.

Policy: knows ranks and numbers of tokens. What is multiplied then is ``updates``' business.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from app.engine.tiles import Tiler
from app.engine.updates import Batch, Run, SlotStore

_MOST_SPARE = 2  # times as many columns as needed are multiplied before the slots are stacked anew
_FEW_TOKENS = 64  # up to which rows of several tokens are computed with a stack that is there
_FEW_COLUMNS = 16  # up to which a stack that is there beats a product for each run, however many tokens


class Segments:
    """Which row of the batch in flight belongs to which slot."""

    def __init__(self, stores: Sequence[SlotStore], num_slots: int, *, tiler: Tiler | None = None) -> None:
        """``tiler``: where kernels compute the updates; nothing is stacked then."""
        self.ranks = [0] * (num_slots + 1)  # by slot; 0: empty, its rows compute the bare base
        self.generation = 0  # grows with every change
        self._stores, self._tiler = stores, tiler
        self._slots: list[int] = []
        self._num_tokens = 0
        self._stacked: tuple[int, ...] = ()
        self._batch: Batch | None = None
        self._is_planned = False

    def set(self, slots: Sequence[int], num_tokens: int) -> None:
        """``slots`` of the rows, in any order, and the tokens of each row, padding included."""
        if num_tokens != self._num_tokens or self._slots != [*slots]:
            self._slots, self._num_tokens = [*slots], num_tokens
            self._renew()

    def changed(self, slot: int, rank: int) -> None:
        """Another adapter is in ``slot``, or none (rank 0)."""
        self.ranks[slot] = rank
        if slot in self._stacked:
            self._stacked = ()
        self._renew()

    @property
    def batch(self) -> Batch | None:
        """How to compute the rows' updates; None if no row has one."""
        if not self._is_planned:
            self._batch, self._is_planned = self._plan(), True
        return self._batch

    def _renew(self) -> None:
        self.generation += 1
        self._is_planned = False

    def _plan(self) -> Batch | None:
        used = sorted({slot for slot in self._slots if self.ranks[slot]})
        if not used:
            return None
        if self._tiler is not None:
            tiles = self._tiler.tiles([slot if self.ranks[slot] else 0 for slot in self._slots], self._num_tokens)
            return Batch(len(self._slots), self._num_tokens, self._runs(), tiles=tiles)
        places = len(self._slots) * self._num_tokens
        if self._num_tokens == 1 and not self._covers(used):
            self._stack(used)
        is_cheap = places <= _FEW_TOKENS or sum(self.ranks[slot] for slot in self._stacked) <= _FEW_COLUMNS
        is_stacked = self._num_tokens == 1 or (is_cheap and self._covers(used))
        mask = self._mask() if is_stacked else None
        return Batch(len(self._slots), self._num_tokens, self._runs(), mask)

    def _covers(self, used: Sequence[int]) -> bool:
        """Whether the slots stacked last will do: stacking anew costs milliseconds, a few columns more do not."""
        wanted, there = (sum(self.ranks[slot] for slot in slots) for slots in (used, self._stacked))
        return set(used) <= set(self._stacked) and there <= _MOST_SPARE * wanted

    def _stack(self, slots: Sequence[int]) -> None:
        self._stacked = tuple(slots)
        for store in self._stores:
            store.stack([(slot, self.ranks[slot]) for slot in slots])

    def _runs(self) -> list[Run]:
        """Neighbours of one slot become one run; the base's need none."""
        runs, start = [], 0
        for slot, rows in groupby(self._slots):
            end = start + len(list(rows))
            if self.ranks[slot]:
                runs.append((slot, self.ranks[slot], start, end))
            start = end
        return runs

    def _mask(self) -> Tensor:
        device = self._stores[0].a.device
        columns = torch.tensor([slot for slot in self._stacked for _ in range(self.ranks[slot])], device=device)
        rows = torch.tensor(self._slots, device=device).repeat_interleave(self._num_tokens)
        return rows[:, None] != columns
