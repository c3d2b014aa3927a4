"""Tables of segments: every place of an adapter in one tile of its slot, bare places in none."""

from __future__ import annotations

import pytest
import torch

from app.engine.tiles import Tiler, Tiles

CPU = torch.device("cpu")
MIXES = [[1], [0, 0, 2], [2, 0, 1, 2, 3, 0, 1], [1] * 40, [3, 2, 1] * 7, [row % 4 for row in range(64)]]


def places_of(tiles: Tiles) -> dict[int, list[int]]:
    """Places by slot, as a kernel would visit them."""
    found: dict[int, list[int]] = {}
    for slot, first, count in tiles.table.tolist():
        assert count <= tiles.height
        if count:
            found.setdefault(slot, []).extend(tiles.order[first : first + count].tolist())
    return found


@pytest.mark.parametrize("num_tokens", [1, 3, 50])
@pytest.mark.parametrize("slots", MIXES)
def test_every_place_is_visited_once(slots: list[int], num_tokens: int) -> None:
    visited = places_of(Tiler(3, CPU).tiles(slots, num_tokens))
    assert visited == {
        slot: [
            row * num_tokens + token
            for row, of_row in enumerate(slots)
            if of_row == slot
            for token in range(num_tokens)
        ]
        for slot in {*slots} - {0}
    }


def test_one_token_a_row_overwrites_the_same_memory() -> None:
    """What a CUDA graph has recorded reads the tables of the step in which it is replayed."""
    tiler = Tiler(3, CPU)
    first = tiler.tiles([1, 2, 3, 0], 1)
    second = tiler.tiles([0, 3, 0, 3], 1)
    assert [first.order.data_ptr(), first.table.data_ptr()] == [second.order.data_ptr(), second.table.data_ptr()]
    assert places_of(first) == places_of(second) == {3: [1, 3]}
    other = tiler.tiles([1, 1], 1)
    assert places_of(other) == {1: [0, 1]}
    assert places_of(first) == {3: [1, 3]}, "other numbers of rows have memory of their own"


@pytest.mark.parametrize("num_tokens", [1, 40])
def test_the_number_of_tiles_depends_on_the_batchs_size_only(num_tokens: int) -> None:
    tiler = Tiler(3, CPU)
    mixes = [[1] * 33, [0] * 33, [1, 2, 3] * 11, [0, 0, 1] * 11]
    assert len({len(tiler.tiles(mix, num_tokens).table) for mix in mixes}) == 1
