"""Steps of one token a row, recorded as CUDA graphs: launching their kernels one by one takes longer than they run.

What differs from one replay to the next is numbers on the device: the rows' tokens, where they begin, which column they
write, which slot they use. So a graph serves any mix of sequences and adapters of its size; batches are padded up to
the next size. A graph is believed once it has given the numbers of the step it was recorded from.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from app.engine.base import LoadedBase
from app.engine.rectangle import FixedColumns, Rectangle
from app.engine.segments import Segments

log = logging.getLogger(__name__)

_COLUMNS = 128  # the columns of a graph are a multiple: more are computed in vain, fewer are recorded more often
_PATIENCE = 4  # steps of a kind before it is recorded; a batch that grows or shrinks passes most sizes in fewer
_TOLERANCE = 0.02  # of the largest logit: sums in another order, rounded

Replay = Callable[[], Tensor]  # → what was computed when it was recorded, anew, in the same memory
Record = Callable[[Replay], Replay]


class StepGraphs:
    """Those of one base. Belongs to the engine's thread."""

    def __init__(self, base: LoadedBase, segments: Segments, record: Record) -> None:
        self._base, self._segments, self._record = base, segments, record
        self._steps: WeakKeyDictionary[Rectangle, tuple[int, dict[tuple[int, int, bool], _Step]]] = WeakKeyDictionary()
        self.is_off = False
        self.num_replays = 0

    def decode(
        self, past: Rectangle, tokens: Sequence[int], lengths: Sequence[int], slots: Sequence[int]
    ) -> Tensor | None:
        """Logits after each row's newest token [rows, vocabulary], which the next step overwrites.

        None where the step is to be computed as usual. ``past`` has ``padded`` rows; ``lengths``: with the new token.
        """
        num_rows = padded(len(tokens))
        num_columns = min(past.capacity[1], rounded_columns(past.last))
        spare = num_rows - len(tokens)
        self._segments.set([*slots, *[0] * spare], num_tokens=1)
        batch = self._segments.batch  # writes the tables that the recorded kernels read
        if self.is_off or (batch is not None and batch.tiles is None):
            return None
        steps = self._steps_of(past)
        kind = (num_rows, num_columns, batch is not None)
        if kind not in steps:
            steps[kind] = _Step(self._base, past, num_rows, num_columns)
        step = steps[kind]
        step.num_uses += 1
        if step.num_uses <= _PATIENCE:
            return None
        starts = [past.last + 1 - length for length in lengths]
        step.set([*tokens, *[self._base.eos_id] * spare], [*starts, *[past.last] * spare], past.last)
        logits = step.replay() if step.replay is not None else self._recorded(step)
        if logits is None:
            return None
        self.num_replays += 1
        return logits[: len(tokens)]

    def _steps_of(self, past: Rectangle) -> dict[tuple[int, int, bool], _Step]:
        """What was recorded with storage that is no more is forgotten."""
        generation, steps = self._steps.get(past, (0, {}))
        if generation != past.generation:
            steps = {}
            self._steps[past] = past.generation, steps
        return steps

    def _recorded(self, step: _Step) -> Tensor | None:
        """Compute a step, record it and replay it, which must give the same; if not, none is recorded any more."""
        try:
            wanted = step.compute()
            replay = self._record(step.compute)
            logits = replay()
            difference = (logits.float() - wanted.float()).abs().max()
            if not float(difference) <= _TOLERANCE * float(wanted.float().abs().max()):
                raise ArithmeticError("a replayed step gives other numbers")
        except Exception as error:  # of a driver, or of an architecture that looks at its numbers
            log.warning("steps are not recorded as CUDA graphs: %s", next(iter(str(error).splitlines()), repr(error)))
            self.is_off = True
            self._steps.clear()
            return None
        step.replay = replay
        return logits


class _Step:
    """One step of so many rows and columns, computed from numbers that stay in the same memory."""

    def __init__(self, base: LoadedBase, past: Rectangle, num_rows: int, num_columns: int) -> None:
        self.num_uses = 0
        self.replay: Replay | None = None
        self._base = base
        self._numbers = torch.zeros(2 * num_rows + 1, dtype=torch.long, device=base.device)
        ids, starts, self._column = self._numbers.split([num_rows, num_rows, 1])  # type: ignore[no-untyped-call]
        self._ids, self._starts = ids[:, None], starts[:, None]
        self._columns = torch.arange(num_columns, device=base.device)
        self._past = FixedColumns(past, num_rows, num_columns, self._column)

    def set(self, ids: Sequence[int], starts: Sequence[int], column: int) -> None:
        """``starts``: the rows' first columns; ``column``: of the new tokens."""
        self._numbers.copy_(torch.tensor([*ids, *starts, column]))

    def compute(self) -> Tensor:
        """→ [rows, vocabulary]"""
        is_seen = (self._columns >= self._starts) & (self._columns <= self._column)
        arguments = self._base.forward_arguments(
            attention_mask=is_seen.long(),
            position_ids=self._column - self._starts,
            past_key_values=self._past,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = self._base.model(input_ids=self._ids, **arguments).logits
        return logits[:, -1]


def padded(num_rows: int) -> int:
    """The next number of rows that steps are recorded for: 1, 2, 4, 8, then two for each doubling (12, 16, 24, 32)."""
    size = 1 << (num_rows - 1).bit_length()
    return size * 3 // 4 if size > 8 and num_rows <= size * 3 // 4 else size


def rounded_columns(last: int) -> int:
    """Columns of a step that writes column ``last``."""
    return (last // _COLUMNS + 1) * _COLUMNS


def cuda_recorder() -> Record:
    """Records on the current CUDA device. What graphs compute with on the way is the same memory: they run in turn."""
    return _CudaRecorder()


class _CudaRecorder:
    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._first: torch.cuda.CUDAGraph | None = None  # kept: a pool whose last graph is gone cannot be used again

    def __call__(self, compute: Replay) -> Replay:
        if self._first is None:
            self._first, _ = self._record(lambda: torch.zeros(1, device="cuda"))
        graph, result = self._record(compute)

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay

    def _record(self, compute: Replay) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """As ``torch.cuda.graph`` does it, but the allocator keeps its cache, which all that runs would miss."""
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.stream(self._stream), _no_collection():
            graph.capture_begin(
                pool=self._pool, capture_error_mode="thread_local"
            )  # others may load adapters meanwhile
            try:
                result = compute()
            finally:
                graph.capture_end()
        torch.cuda.current_stream().wait_stream(self._stream)
        return graph, result


@contextmanager
def _no_collection() -> Iterator[None]:
    """Garbage of other graphs may not be freed while one is recorded."""
    is_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_on:
            gc.enable()
