"""Which places of a batch belong to which slot, as tables on the device: what a kernel needs to compute all at once.

Places of one slot become a segment, segments are cut into tiles, a kernel's program computes one. Written once a step,
not once a layer. Plain torch; knows nothing of kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_ONE_TOKEN, _MORE = 16, 32  # places of a tile; 16 is the least that tensor cores multiply


@dataclass(frozen=True, slots=True)
class Tiles:
    """Those that are spare have no places: how many there are depends on the batch's size only."""

    order: Tensor  # [places] int32: the places of all segments, one segment after the other
    table: Tensor  # [tiles, 3] int32: slot, first of ``order``, how many
    height: int  # places of a tile, at most

    @property
    def num_places(self) -> int:
        return len(self.order)


class Tiler:
    """Makes the tables. Those for one token a row stay in the same memory, as CUDA graphs need it."""

    def __init__(self, num_slots: int, device: torch.device) -> None:
        self._num_slots, self._device = num_slots, device
        self._kept: dict[int, Tiles] = {}  # by number of rows

    def tiles(self, slots: Sequence[int], num_tokens: int) -> Tiles:
        """``slots``: of the rows, 0 where a row has no update. Overwrites what it gave before for as many rows."""
        height = _ONE_TOKEN if num_tokens == 1 else _MORE
        places = len(slots) * num_tokens
        most = min(places, self._num_slots + places // height)
        tiles = self._kept.get(places) if num_tokens == 1 else None
        if tiles is None:
            tiles = self._blank(places, most, height)
        if num_tokens == 1:
            self._kept[places] = tiles
        order, table = sorted_tiles(slots, num_tokens, height)
        tiles.order[: len(order)].copy_(order)
        tiles.table.copy_(F.pad(table, (0, 0, 0, most - len(table))))
        return tiles

    def _blank(self, places: int, most: int, height: int) -> Tiles:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int32, device=self._device)

        return Tiles(zeros(places), zeros(most, 3), height)


def sorted_tiles(slots: Sequence[int], num_tokens: int, height: int) -> tuple[Tensor, Tensor]:
    """Order and table, int32, without spare tiles; places of slot 0 are in none."""
    rows = sorted((row for row, slot in enumerate(slots) if slot), key=lambda row: slots[row])
    order = torch.tensor(rows, dtype=torch.int32)[:, None] * num_tokens + torch.arange(num_tokens, dtype=torch.int32)
    table, start = [], 0
    for slot in sorted({*slots} - {0}):
        end = start + slots.count(slot) * num_tokens
        table += [(slot, first, min(height, end - first)) for first in range(start, end, height)]
        start = end
    return order.flatten(), torch.tensor(table, dtype=torch.int32).view(-1, 3)
