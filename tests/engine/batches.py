"""A batcher without its thread: sequences go in, steps are taken by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.core.records import COUNTERS, GenerationRequest
from app.engine.adapter_files import read_adapter
from app.engine.base import LoadedBase
from app.engine.batcher import Batcher, Limits
from app.engine.detokenize import TextStream
from app.engine.host_tier import HostTier
from app.engine.rectangle import layout_of
from app.engine.sampling import make_sampler
from app.engine.scheduler import Scheduler
from app.engine.sequences import Sequence
from app.engine.slot_table import SlotTable
from app.engine.slots import SlotBank
from app.engine.step_graphs import Record
from tests.engine.tiny import make_bank

PLENTY = 1 << 30


class Batch:
    """Sequences of one base, with the adapters of the folders it is given."""

    def __init__(
        self,
        base: LoadedBase,
        adapters: Mapping[str, Path] | None = None,
        *,
        num_slots: int = 3,
        bank: SlotBank | None = None,
        max_batch: int = 8,
        prefill_tokens: int = 64,
        cache_bytes: int = PLENTY,
        prefix_bytes: int = PLENTY,
        spare_tokens: int = 0,
        record: Record | None = None,
    ) -> None:
        self.base, self.counts = base, Counter(dict.fromkeys(COUNTERS, 0))
        layout = layout_of(base.model, base.eos_id)
        self.bank = bank or make_bank(base, num_slots=num_slots)
        host = HostTier(PLENTY)
        for name, folder in (adapters or {}).items():
            host.load(name, lambda folder=folder: read_adapter(folder))  # type: ignore[misc]
        self.scheduler = Scheduler(SlotTable(num_slots))
        self.batcher = Batcher(
            base,
            layout,
            self.bank,
            self.scheduler,
            host,
            Limits(max_batch, prefill_tokens, cache_bytes, prefix_bytes, spare_tokens),
            probe_ids=[1, 5, 9, 30],
            counts=self.counts,
            record=record,
        )

    def ask(self, prompt: list[int] | str, *, adapter: str | None = None, **changes: Any) -> Sequence:
        """A sequence in the line of its expert."""
        ids = self.base.encode(prompt) if isinstance(prompt, str) else prompt
        request = GenerationRequest("", adapter=adapter, **{"max_new_tokens": 16, **changes})
        sequence = Sequence(
            request,
            ids,
            TextStream(self.base.tokenizer, request.stop),
            make_sampler(request.temperature, request.top_p, request.seed),
            self.base.eos_ids,
        )
        self.scheduler.add(sequence)
        return sequence

    def run(self) -> None:
        """Step until nothing is left to do."""
        while self.batcher.has_work:
            assert self.batcher.step(), "what waits can never run"

    def say(self, prompt: list[int] | str, **changes: Any) -> Sequence:
        """One sequence, alone, to its end."""
        sequence = self.ask(prompt, **changes)
        self.run()
        return sequence
