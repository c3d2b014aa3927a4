"""Forward passes beside the running batch, for scores and mixtures: one adapter's rows, one pass between two steps.

Each pass waits for its adapter's slot and gives it up again, so that more adapters than slots get on and running
requests go on meanwhile. What was computed stays in rectangles of its own, apart from the batch's budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

from app.core.records import GenerationRequest
from app.engine.base import LoadedBase
from app.engine.batcher import Batcher
from app.engine.detokenize import TextStream
from app.engine.forward import Forward, Prefill
from app.engine.rectangle import Layout
from app.engine.sampling import make_sampler
from app.engine.sequences import Sequence

_T = TypeVar("_T")
_BYTES = {"cpu": 1 << 28, "cuda": 1 << 31}


class Run(Protocol):
    """Runs a computation on the engine's thread, given the slot that holds the adapter; raises what it raises."""

    def __call__(self, adapter: str | None, compute: Callable[[int], _T], /) -> _T: ...


@dataclass(frozen=True, slots=True)
class Passes:
    """What passes are made with, and how large they may be."""

    base: LoadedBase
    layout: Layout
    forward: Forward
    run: Run
    adapter_in: Callable[[int], str | None]  # whose weights a slot holds
    num_tokens: int  # computed in one pass
    num_rows: int
    num_bytes: int  # keys and values of one batch; float32 logits of one pass

    def greedy(self, request: GenerationRequest, prompt_ids: list[int]) -> Sequence:
        """A row for ``prefill``."""
        stream = TextStream(self.base.tokenizer, request.stop)
        return Sequence(request, prompt_ids, stream, make_sampler(0.0, 1.0, 0), self.base.eos_ids)

    def prefill(self, adapter: str | None, rows: Many[Sequence]) -> tuple[Prefill, Tensor]:
        """Compute prompts side by side → what was computed, and the logits after each [rows, vocabulary]."""
        work = Prefill(self.layout, rows, [()] * len(rows))

        def compute(slot: int) -> Tensor:
            for row in rows:
                row.slot = slot
            return self.forward.prefill(work, self.num_tokens)

        while True:
            logits = self.run(adapter, compute)
            if work.is_done:
                return work, logits

    def holds(self, num_rows: int, num_columns: int) -> bool:
        """Whether the keys and values of so many rows may be kept at once."""
        return num_rows <= self.num_rows and num_rows * num_columns * self.layout.bytes_per_token <= self.num_bytes

    def num_logits(self) -> int:
        """Positions whose logits may be computed in one pass."""
        return max(1, min(self.num_tokens, self.num_bytes // (4 * self.base.num_embeddings)))


def passes_beside(
    batcher: Batcher, base: LoadedBase, layout: Layout, *, run: Run, step_tokens: int, num_rows: int
) -> Passes:
    """As large as the device bears while the batch runs. ``step_tokens``: prompt tokens of one step of the batch."""
    return Passes(
        base,
        layout,
        batcher.forward,
        run,
        batcher.residents.adapter_in,
        num_tokens=step_tokens,
        num_rows=num_rows,
        num_bytes=_BYTES[base.device.type],
    )


def batches(items: Many[_T], fits: Callable[[list[_T]], bool]) -> Iterator[list[_T]]:
    """Neighbours together, as many as ``fits`` allows, one at least."""
    batch: list[_T] = []
    for item in items:
        if batch and not fits([*batch, item]):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
