"""(x A[slot]) B[slot] for all rows, slots and layers of a group in two launches, in Triton; float32 sums.

Shrink makes h = x A, [splits, places, members · rank], expand adds h B to the layers' outputs. A program computes one
tile (``tiles.py``): places of one slot, so that its matrices are read once for all of them. What a place gets does not
depend on its neighbours. Imported only where kernels run: on a GPU, or under Triton's interpreter.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from app.engine.kernels.arithmetic import INTERPRETED, multiply
from app.engine.tiles import Tiles

BLOCK_OUT = 64  # outputs that one program of the expansion computes
_BLOCK_IN = 64  # inputs that are multiplied at a time
_SPLIT, _MOST_SPLITS = 1024, 8  # inputs of one program of the reduction: a few slots would leave most of a GPU idle
_FEWEST = 16  # rows and columns that tensor cores multiply


@triton.jit
def shrink(
    x, a, ranks, order, table, h, in_features, x_stride, num_slots, num_rows, num_places, split_in,
    MAX_RANK: tl.constexpr, RANK: tl.constexpr, HEIGHT: tl.constexpr, BLOCK_IN: tl.constexpr,
    INTERPRETED: tl.constexpr,
):  # fmt: skip
    """h[split, place of the order, member] = x[place, inputs of the split] · A[member, slot] for one tile."""
    tile, member, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    slot = tl.load(table + 3 * tile)
    first = tl.load(table + 3 * tile + 1)
    count = tl.load(table + 3 * tile + 2)
    if count == 0:
        return
    rank = tl.load(ranks + member * num_slots + slot - 1)
    if rank == 0:
        return
    row, column, step = tl.arange(0, HEIGHT), tl.arange(0, RANK), tl.arange(0, BLOCK_IN)
    place = tl.load(order + first + row, mask=row < count, other=0).to(tl.int64)
    x += place[:, None] * x_stride
    a += ((member * num_slots + slot - 1).to(tl.int64) * MAX_RANK + column[None, :]) * in_features
    begin = split * split_in
    end = tl.minimum(begin + split_in, in_features)
    total = tl.zeros((HEIGHT, RANK), tl.float32)
    for start in range(begin, end, BLOCK_IN):
        k = start + step
        of_x = tl.load(x + k[None, :], mask=(row < count)[:, None] & (k < end)[None, :], other=0.0)
        of_a = tl.load(a + k[:, None], mask=(k < end)[:, None] & (column < rank)[None, :], other=0.0)
        total = multiply(of_x, of_a, total, INTERPRETED)
    h += ((split * num_places + first + row).to(tl.int64) * num_rows + member)[:, None] * RANK + column[None, :]
    tl.store(h, total, mask=(row < count)[:, None])


@triton.jit
def expand(
    y, b, ranks, order, table, blocks, h, outs, y_stride, y_first, num_slots, num_rows, num_places,
    MAX_RANK: tl.constexpr, RANK: tl.constexpr, HEIGHT: tl.constexpr, BLOCK_OUT: tl.constexpr, SPLITS: tl.constexpr,
    INTERPRETED: tl.constexpr,
):  # fmt: skip
    """y[place, outputs of the block] += (sum of h over splits) · B[slot] for one tile and one block of one member."""
    tile, block = tl.program_id(0), tl.program_id(1)
    slot = tl.load(table + 3 * tile)
    first = tl.load(table + 3 * tile + 1)
    count = tl.load(table + 3 * tile + 2)
    member = tl.load(blocks + 3 * block)
    start = tl.load(blocks + 3 * block + 1)
    width = tl.load(blocks + 3 * block + 2)
    if count == 0:
        return
    rank = tl.load(ranks + member * num_slots + slot - 1)
    if rank == 0:
        return
    row, column, step = tl.arange(0, HEIGHT), tl.arange(0, RANK), tl.arange(0, BLOCK_OUT)
    is_there = (row < count)[:, None] & (column < rank)[None, :]
    reduced = tl.zeros((HEIGHT, RANK), tl.float32)
    for split in tl.static_range(SPLITS):
        of_split = ((split * num_places + first + row).to(tl.int64) * num_rows + member)[:, None] * RANK
        reduced += tl.load(h + of_split + column[None, :], mask=is_there, other=0.0)
    b += ((slot - 1).to(tl.int64) * MAX_RANK + column[:, None]) * outs + start + step[None, :]
    of_b = tl.load(b, mask=(column < rank)[:, None] & (step < width)[None, :], other=0.0)
    added = multiply(reduced.to(of_b.dtype), of_b, tl.zeros((HEIGHT, BLOCK_OUT), tl.float32), INTERPRETED)
    place = tl.load(order + first + row, mask=row < count, other=0).to(tl.int64)
    y += place[:, None] * y_stride + (start - y_first) + step[None, :]
    is_mine = (row < count)[:, None] & (step < width)[None, :]
    tl.store(y, (tl.load(y, mask=is_mine, other=0.0).to(tl.float32) + added).to(y.dtype.element_ty), mask=is_mine)


@cache
def column_blocks(outs: tuple[int, ...], device: torch.device) -> Tensor:
    """[blocks, 3] int32: member, its first column among all members', width. No block has columns of two members."""
    blocks, first = [], 0
    for member, out in enumerate(outs):
        blocks += [(member, first + at, min(BLOCK_OUT, out - at)) for at in range(0, out, BLOCK_OUT)]
        first += out
    return torch.tensor(blocks, dtype=torch.int32, device=device)


def add_updates(
    y: Sequence[Tensor],
    x: Tensor,
    *,
    whole: Tensor | None,
    a: Tensor,
    b: Tensor,
    ranks: Tensor,
    tiles: Tiles,
) -> None:
    """``y``, ``x`` and ``whole`` as apply_updates has them, with one launch more for each member if there is no whole.

    a: [members, slots, max rank, in]; b: [slots, max rank, outs]; ranks: [members, slots] int32, 0 where an adapter has
    no matrices. What lies beyond a rank is never read.
    """
    members, num_slots, max_rank, in_features = a.shape
    x = x if x.stride(1) == 1 else x.contiguous()
    rank = max(_FEWEST, triton.next_power_of_2(max_rank))
    splits = min(_MOST_SPLITS, max(1, in_features // _SPLIT))
    split_in = triton.cdiv(triton.cdiv(in_features, splits), _BLOCK_IN) * _BLOCK_IN
    blocks = column_blocks(tuple(part.shape[1] for part in y), x.device)
    h = torch.empty(splits, tiles.num_places, members, rank, dtype=torch.float32, device=x.device)
    num_tiles = len(tiles.table)
    shared = {"MAX_RANK": max_rank, "RANK": rank, "HEIGHT": tiles.height, "INTERPRETED": INTERPRETED}
    shrink[num_tiles, members, splits](
        x, a, ranks, tiles.order, tiles.table, h, in_features, x.stride(0), num_slots, members, tiles.num_places,
        split_in, **shared, BLOCK_IN=_BLOCK_IN,
    )  # fmt: skip
    first_block = first = 0
    for part in y if whole is None else [whole]:
        out = part.shape[1]
        num_blocks = len(blocks) if whole is not None else triton.cdiv(out, BLOCK_OUT)
        expand[num_tiles, num_blocks](
            part, b, ranks, tiles.order, tiles.table, blocks[first_block:], h, b.shape[2], part.stride(0), first,
            num_slots, members, tiles.num_places, **shared, BLOCK_OUT=BLOCK_OUT, SPLITS=splits,
        )  # fmt: skip
        first_block, first = first_block + num_blocks, first + out
