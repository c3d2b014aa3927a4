"""Keys and values of sequences side by side: rows of one rectangle, every row ending at the same column.

A row of n tokens takes the last n columns before ``last``, so a forward pass over it is what transformers computes for
a batch padded on the left: every architecture whose layers only attend is right in it, sliding windows and ALiBi
included. Rows join, grow by one column together and leave; nothing is gathered or copied at a step.

Knows nothing of requests, adapters or when to run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

Span = list[Tensor]  # successive tokens of one row: for each storage, [layers, heads, tokens, dim]

_FULL = 0.8  # share of the columns from which on a rectangle grows rather than moves its content to the left again


@dataclass(frozen=True, slots=True)
class Layout:
    """What a base keeps for a token: (heads, dim) of the keys and of the values, layer by layer."""

    keys: tuple[tuple[int, int], ...]
    values: tuple[tuple[int, int], ...]
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        return sum(heads * dim for heads, dim in (*self.keys, *self.values)) * self.dtype.itemsize

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """The different shapes, in a fixed order: one storage each."""
        return sorted({*self.keys, *self.values})


class _Layer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """What transformers asks of a layer beyond ``update``; the cache answers for all."""

    def __init__(self, cache: Rectangle | FixedColumns, *, is_compileable: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cache = cache
        self.is_initialized = True
        self.is_compileable = is_compileable  # true: a mask is made whatever it holds, which would have to be looked at

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None: ...

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return self.cache.update(key_states, value_states, self.cache.layers.index(self))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cache.get_mask_sizes(query_length, 0)

    def get_seq_length(self) -> int:
        return self.cache.get_seq_length()  # type: ignore[return-value]  # a tensor of FixedColumns, as of static caches

    def get_max_length(self) -> int:
        return -1


class Rectangle(Cache):
    """A transformers cache. Columns ``first`` to ``last`` are what the next forward pass sees as its past."""

    def __init__(self, layout: Layout, num_rows: int, num_columns: int) -> None:
        super().__init__(layers=[_Layer(self) for _ in layout.keys])
        self.layout = layout
        self.first = self.last = 0
        self.generation = 0  # grows whenever storage is new
        self._place: list[tuple[tuple[int, int], tuple[int, int]]] = []  # (storage, index in it) of keys and of values
        counts = [0] * len(layout.shapes)
        for pair in zip(layout.keys, layout.values, strict=True):
            places = []
            for shape in pair:
                storage = layout.shapes.index(shape)
                places.append((storage, counts[storage]))
                counts[storage] += 1
            self._place.append((places[0], places[1]))
        self._counts = counts
        self._allocate(num_rows, num_columns)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """key_states, value_states [rows, heads, new, dim] → all that these rows can look at, as views."""
        rows, _, new, _ = key_states.shape
        seen = []
        for tensor, states in zip(self.of_layer(layer_idx), (key_states, value_states), strict=True):
            tensor[:rows, :, self.last : self.last + new] = states
            seen.append(tensor[:rows, :, self.first : self.last + new])
        return seen[0], seen[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.last - self.first

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.last - self.first + query_length, 0

    def of_layer(self, layer_idx: int) -> tuple[Tensor, Tensor]:
        """All of a layer's keys and values, [rows, heads, columns, dim] each."""
        keys, values = (self._storages[storage][index] for storage, index in self._place[layer_idx])
        return keys, values

    @property
    def capacity(self) -> tuple[int, int]:
        """Rows and columns of the storage."""
        return self._storages[0].shape[1], self._storages[0].shape[3]

    def read(self, row: int, start: int, end: int) -> Span:
        """Copies of columns ``start`` to ``end`` of a row."""
        return [storage[:, row, :, start:end].clone() for storage in self._storages]

    def write(self, row: int, start: int, span: Span) -> None:
        """Put successive tokens into a row, the first at column ``start``."""
        for storage, tokens in zip(self._storages, span, strict=True):
            storage[:, row, :, start : start + tokens.shape[2]] = tokens

    def take(self, row: int, other: Rectangle, other_row: int, length: int) -> None:
        """Copy the last ``length`` columns of another rectangle's row to the end of ours; there must be room."""
        self.write(
            row,
            self.last - length,
            [storage[:, other_row, :, other.last - length : other.last] for storage in other._storages],
        )

    def move_row(self, source: int, target: int) -> None:
        """Copy one row over another."""
        for storage in self._storages:
            storage[:, target, :, self.first : self.last] = storage[:, source, :, self.first : self.last]

    def blank_row(self, row: int) -> None:
        """Zero a row. Masked columns count for nothing only if they are numbers."""
        for storage in self._storages:
            storage[:, row] = 0

    def make_room(self, num_rows: int, width: int, *, live_rows: int, most_columns: int) -> None:
        """Room for ``num_rows`` rows, the longest ``width`` columns wide, and for one column more to step into.

        Storage grows to at most ``most_columns``; where it does not have to, what ``live_rows`` hold is moved.
        """
        rows, columns = self.capacity
        is_narrow = columns < most_columns and width + 1 > _FULL * columns
        if num_rows > rows or is_narrow:
            self._resize(
                max(num_rows, 2 * rows) if num_rows > rows else rows,
                min(most_columns, 2 * (width + 1)) if is_narrow else columns,
                live_rows,
            )
        if self.last < width or self.last >= self.capacity[1]:
            self._shift(width, live_rows)

    def _shift(self, last: int, live_rows: int) -> None:
        """Move what lies between ``first`` and ``last`` so that it ends at another column."""
        width = self.last - self.first
        for storage in self._storages:
            live = storage[:, :live_rows]
            live[:, :, :, last - width : last] = live[:, :, :, self.first : self.last].clone()
        self.first, self.last = last - width, last

    def _resize(self, num_rows: int, num_columns: int, live_rows: int) -> None:
        """New storage with what is live at its left edge."""
        width, old = self.last - self.first, self._storages
        self._allocate(num_rows, num_columns)
        for storage, before in zip(self._storages, old, strict=True):
            storage[:, :live_rows, :, :width] = before[:, :live_rows, :, self.first : self.last]
        self.first, self.last = 0, width

    def _allocate(self, num_rows: int, num_columns: int) -> None:
        layout = self.layout
        self.generation += 1
        self._storages = [
            torch.zeros(count, num_rows, heads, num_columns, dim, dtype=layout.dtype, device=layout.device)
            for count, (heads, dim) in zip(self._counts, layout.shapes, strict=True)
        ]


class FixedColumns(Cache):
    """A rectangle as a step sees it that is recorded and replayed: always the same rows and columns of its storage.

    Where the newest token goes is a number on the device, and what a row can look at is the mask's business.
    """

    def __init__(self, rectangle: Rectangle, num_rows: int, num_columns: int, column: Tensor) -> None:
        """``column`` [1] int64: of each row's newest token."""
        super().__init__(layers=[_Layer(self, is_compileable=True) for _ in rectangle.layers])
        self.num_columns, self.column = num_columns, column
        self._seen = [
            [tensor[:num_rows, :, :num_columns] for tensor in rectangle.of_layer(number)]
            for number in range(len(rectangle.layers))
        ]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """key_states, value_states [rows, heads, 1, dim] → keys and values of all columns, as views."""
        keys, values = self._seen[layer_idx]
        keys.index_copy_(2, self.column, key_states)
        values.index_copy_(2, self.column, value_states)
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> Tensor:  # type: ignore[override]
        return self.column

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.num_columns, 0


class _Recorder(Cache):
    """Writes down what a forward pass would keep."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        self.keys[layer_idx], self.values[layer_idx] = key_states, value_states
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return query_length, 0


def layout_of(model: Any, token: int) -> Layout:
    """What ``model`` keeps for a token, found by computing one. Raises ValueError for one that keeps anything else."""
    recorder = _Recorder()
    with torch.inference_mode():
        model(input_ids=torch.tensor([[token]], device=model.device), past_key_values=recorder, use_cache=True)
    layers = sorted(recorder.keys)
    if not layers or layers != list(range(len(layers))):
        raise ValueError("its layers keep no keys and values")

    def shapes(tensors: dict[int, Tensor]) -> Iterator[tuple[int, int]]:
        return ((tensors[layer].shape[1], tensors[layer].shape[3]) for layer in layers)

    one = recorder.keys[0]
    return Layout(tuple(shapes(recorder.keys)), tuple(shapes(recorder.values)), one.dtype, one.device)


def span_bytes(span: Sequence[Tensor]) -> int:
    """Bytes of a span."""
    return sum(tensor.nbytes for tensor in span)
