"""Continuous batching: each step lets in who can run, computes a part of the new prompts and one token of every answer.

A sequence joins as soon as there is a row, a slot and cache for it and leaves with its last token (or its caller);
nobody waits for anybody else's end. Every method belongs to the engine's thread.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor

from app.core.errors import DeadlineExceeded, InvalidInput, Problem
from app.core.records import EngineState, ExpertLoad, TokenLogprob
from app.engine.bands import Band, Bands
from app.engine.base import LoadedBase
from app.engine.detokenize import token_text
from app.engine.forward import Forward, Prefill
from app.engine.host_tier import HostTier
from app.engine.memory import free_bytes, peak_bytes
from app.engine.prefixes import PAGE, PrefixStore, first_unknown
from app.engine.rectangle import Layout
from app.engine.residents import Residents
from app.engine.sampling import Likelihood, choose_tokens, logprobs_of
from app.engine.scheduler import Item, Scheduler
from app.engine.sequences import Sequence
from app.engine.slots import SlotBank
from app.engine.step_graphs import Record

log = logging.getLogger(__name__)

_MOST_PADDING = 1.3  # prompts are computed together if that computes at most so many times their own tokens


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of the batch; bytes where named so."""

    max_batch: int
    prefill_tokens: int  # computed of new prompts in one step
    cache_bytes: int
    prefix_bytes: int
    spare_tokens: int = 0  # that a pass computes in no more time than none


class Batcher:
    """What runs on one base."""

    def __init__(
        self,
        base: LoadedBase,
        layout: Layout,
        bank: SlotBank,
        scheduler: Scheduler,
        host: HostTier,
        limits: Limits,
        *,
        probe_ids: list[int],
        counts: Counter[str],
        record: Record | None = None,
    ) -> None:
        """``record``: as Forward has it."""
        self._base, self._layout, self._bank, self._host, self._limits = base, layout, bank, host, limits
        self.scheduler, self._counts = scheduler, counts
        self.forward = Forward(base, bank.segments, record=record)
        self._bands = self._no_bands()
        self._prefixes = PrefixStore(limits.prefix_bytes)
        self._prefill: Prefill | None = None
        self.residents = Residents(bank, scheduler, host, self.forward, probe_ids=probe_ids, counts=counts)
        self._word = lru_cache(maxsize=10_000)(partial(token_text, base.tokenizer))
        self._steps_by_rows: Counter[int] = Counter()
        self._rows_by_slots: Counter[int] = Counter()
        self._acted = False
        self._has_written = False  # a slot, in this step

    @property
    def has_work(self) -> bool:
        return bool(len(self.scheduler) or len(self._bands) or self._prefill or self.residents.is_anyone_leaving)

    @property
    def _prefill_tokens(self) -> int:
        """Of new prompts in one step: twice as many while more wait for their first token than stand still for it."""
        return self._limits.prefill_tokens * (2 if len(self.scheduler) > len(self._bands) else 1)

    @property
    def num_waiting(self) -> int:
        return len(self.scheduler)

    def check(self, sequence: Sequence) -> None:
        """Raise InvalidInput for a sequence that could never run."""
        cost = self._bands.most(sequence)
        if cost > self._bands.budget:
            reason = f"needs {cost:,} bytes of cache; SELFSPEC_CACHE_BYTES is {self._bands.budget:,}"
            raise InvalidInput([Problem("max_new_tokens", reason)])

    @torch.inference_mode()
    def step(self) -> bool:
        """Whether anything was computed."""
        self._acted = self._has_written = False
        self._drop()
        self._run_errand()
        self._compute_prompts()
        self._grow()
        for band in self._bands:
            self._guard(band.sequences, lambda band=band: self._decode(band), band)  # type: ignore[misc]
        return self.residents.let_go(self._prefixes.forget) or self._acted

    def fail_running(self, error: BaseException) -> None:
        """Something that belongs to no request went wrong: all that run end with it."""
        running = [sequence for band in self._bands for sequence in band.sequences]
        running += self._prefill.sequences if self._prefill else []
        self._prefill = None
        self._bands = self._no_bands()
        self._fail(running, error)

    def fail_waiting(self, error: BaseException) -> None:
        """All that wait end with ``error``."""
        for item in self.scheduler.remove(lambda item: True):
            item.fail(error)

    def state(self, *, num_slots: int) -> EngineState:
        running, waiting = self.scheduler.running, self.scheduler.waiting
        slot_of, sizes = self.residents.slots(), self._host.sizes()
        names: list[str | None] = [None, *sorted({*sizes, *slot_of})]
        return EngineState(
            num_slots=num_slots,
            max_batch=self._limits.max_batch,
            running=sum(running.values()),
            waiting=sum(waiting.values()),
            slot_bytes=self._bank.slot_bytes,
            host_bytes=self._host.num_bytes,
            host_budget=self._host.budget,
            cache_bytes=self._bands.num_bytes,
            cache_budget=self._bands.budget,
            prefix_bytes=self._prefixes.num_bytes,
            prefix_budget=self._prefixes.budget,
            experts=tuple(
                ExpertLoad(
                    adapter=name,
                    slot=0 if name is None else slot_of.get(name),
                    num_bytes=sizes.get(name, 0) if name else 0,
                    is_pinned=name is not None and self.scheduler.is_pinned(name),
                    running=running.get(name, 0),
                    waiting=waiting.get(name, 0),
                )
                for name in names
            ),
            steps_by_rows=dict(self._steps_by_rows),
            rows_by_slots=dict(self._rows_by_slots),
            peak_bytes=peak_bytes(self._base.device),
            free_bytes=free_bytes(self._base.device),
        )

    def _no_bands(self) -> Bands:
        context_tokens = self._base.info.context_tokens
        return Bands(self._layout, context_tokens=context_tokens, budget=self._limits.cache_bytes)

    def _drop(self) -> None:
        """Callers who left and requests whose time ran out hold nothing from here on."""
        now = time.monotonic()

        def is_over(item: Item) -> bool:
            return item.future.cancelled() or (isinstance(item, Sequence) and item.is_late(now))

        for item in self.scheduler.remove(is_over):
            self._acted = True
            self._counts["cancelled" if item.future.cancelled() else "timeouts"] += 1
            if isinstance(item, Sequence):
                item.fail(DeadlineExceeded(f"waited longer than timeout_s ({item.request.timeout_seconds} s)"))
        for band in self._bands:
            for sequence in [sequence for sequence in band.sequences if is_over(sequence)]:
                self._cut(sequence)
        if self._prefill is not None and all(map(is_over, self._prefill.sequences)):
            for sequence in self._prefill.sequences:
                self._cut(sequence)
            self._prefill = None

    def _cut(self, sequence: Sequence) -> None:
        """End a running sequence before its time."""
        self._acted = True
        self._counts["cancelled" if sequence.is_cancelled else "timeouts"] += 1
        sequence.finish_reason = "timeout"
        self._bands.leave(sequence)
        self._end(sequence)

    def _run_errand(self) -> None:
        """One a step."""
        if (asked := self.scheduler.next_errand()) is not None:
            errand, turn = asked
            self._acted, self._has_written = True, turn[2]
            if self.residents.place(errand, turn):
                errand.run(turn[0])

    def _compute_prompts(self) -> None:
        """Group after group of new prompts, as many as a step has tokens for.

        The sooner all run, the more of them each step computes together.
        """
        left = self._prefill_tokens
        self._prefill = self._prefill or self._admit()
        while self._prefill is not None:
            left -= self._advance(self._prefill, left)
            self._prefill = self._prefill or self._admit()
            if self._prefill is not None and self._prefill.num_left > left:
                return  # a part of it would take about as long as the whole

    def _admit(self) -> Prefill | None:
        """The prompts to compute next. At most one slot is written in a step, so that nobody waits longer than that."""
        if self._has_written:
            return None
        chosen: list[Sequence] = []
        while len(self._bands) + len(chosen) < self._limits.max_batch:
            got = self.scheduler.next(lambda sequence: self._fits(sequence, chosen))
            if got is None:
                break
            sequence, turn = got
            self._acted = True
            if self.residents.place(sequence, turn):
                sequence.slot, sequence.started_at = turn[0], sequence.started_at or time.monotonic()
                chosen.append(sequence)
            self._has_written = turn[2]
            if self._has_written:
                break
        if not chosen:
            return None
        return Prefill(self._layout, chosen, [self._prefixes.find(each.adapter, each.ids) for each in chosen])

    def _fits(self, sequence: Sequence, chosen: Many[Sequence]) -> bool:
        """Whether there is cache for it, and whether it is worth computing together with those chosen."""
        cost = sum(self._bands.cost(each) for each in (*chosen, sequence)) + self._bands.num_bytes
        if cost > self._bands.budget:
            return False
        page = self._new_page(sequence)
        if page is not None and any(self._new_page(other) == page for other in chosen):
            return False  # what they share is computed once: the next group finds it
        return not chosen or self._pays((*chosen, sequence))

    def _new_page(self, sequence: Sequence) -> tuple[str | None, tuple[int, ...]] | None:
        """The first page that this sequence would compute and keep for others."""
        page = first_unknown(self._prefixes, sequence.adapter, sequence.ids)
        return (sequence.adapter, page) if page is not None and self._prefixes.budget else None

    def _pays(self, sequences: Many[Sequence]) -> bool:
        """Whether prompts are worth computing together: within one step and without padding that takes time."""
        known = [len(self._prefixes.find(each.adapter, each.ids)) * PAGE for each in sequences]
        lengths = [sequence.num_tokens for sequence in sequences]
        width = max(lengths)
        start = min(width - length + found for length, found in zip(lengths, known, strict=True))
        area = len(lengths) * (width - start)
        most = max(self._limits.spare_tokens, _MOST_PADDING * (sum(lengths) - sum(known)))
        return area <= min(most, self._prefill_tokens)

    def _grow(self) -> None:
        """Sequences that outgrew their band move on; one for which there is no cache waits until there is."""
        for sequence in self._bands.outgrown():
            if not self._bands.grow(sequence):
                self._bands.leave(sequence)
                self.scheduler.put_back(sequence)
                self._counts["preempted"] += 1

    def _advance(self, work: Prefill, max_tokens: int) -> int:
        """Compute a part of the prompts → how many tokens; when all are, their sequences take their first and run."""
        before = work.num_left

        def compute() -> None:
            logits = self.forward.prefill(work, max_tokens)
            self._counts["prefill_tokens"] += before - work.num_left
            if work.is_done:
                self._prefill = None
                self._start(work, logits)

        self._guard(work.sequences, compute)
        return before - work.num_left

    def _start(self, work: Prefill, logits: Tensor) -> None:
        self._accept(work.sequences, logits)
        for row, sequence in enumerate(work.sequences):
            self._counts["cached_tokens"] += sequence.cached_tokens
            if sequence.finish_reason != "error":
                self._prefixes.keep(
                    sequence.adapter,
                    sequence.prompt_ids,
                    lambda start, end, row=row: work.read(row, start, end),  # type: ignore[misc]
                )
            if sequence.finish_reason is None:
                self._bands.join(sequence, work.rectangle, row, work.lengths[row])
            else:
                self._end(sequence)

    def _decode(self, band: Band) -> None:
        logits = self.forward.decode(band)
        sequences = list(band.sequences)
        self._counts["batches"] += 1
        self._counts["graph_batches"] = self.forward.num_replays
        self._counts["batch_rows"] += len(sequences)
        slots = [sequence.slot for sequence in sequences if sequence.slot]
        self._counts["adapter_rows"] += len(slots)
        self._steps_by_rows[len(sequences)] += 1
        if slots:
            self._rows_by_slots[len(set(slots))] += len(slots)
        self._accept(sequences, logits)
        for sequence in sequences:
            if sequence.finish_reason is not None:
                self._bands.leave(sequence)
                self._end(sequence)

    def _accept(self, sequences: Many[Sequence], logits: Tensor) -> None:
        """logits [rows, vocabulary] → one token more for each."""
        constrained = [row for row, sequence in enumerate(sequences) if sequence.constraint is not None]
        told = [sequence.request.logprobs for sequence in sequences]
        plain = logits.clone() if constrained and any(wanted is not None for wanted in told) else logits
        for row in constrained:
            sequences[row].constraint.mask(logits[row])  # type: ignore[union-attr]
        chosen = choose_tokens(logits, [sequence.sampler for sequence in sequences]).tolist()
        for sequence, token, likelihood in zip(sequences, chosen, logprobs_of(plain, chosen, told), strict=True):
            sequence.accept(token, self._in_words(token, likelihood))

    def _in_words(self, token: int, likelihood: Likelihood | None) -> TokenLogprob | None:
        if likelihood is None:
            return None
        top = tuple((self._word(other), logprob) for other, logprob in likelihood.top)
        return TokenLogprob(self._word(token), likelihood.chosen, top)

    def _end(self, sequence: Sequence) -> None:
        self.scheduler.ended(sequence)
        self._counts["requests"] += not sequence.is_cancelled
        self._counts["prompt_tokens"] += len(sequence.prompt_ids)
        self._counts["generated_tokens"] += len(sequence.token_ids)
        self._counts["failed"] += sequence.finish_reason == "error"
        sequence.end(self.residents.adapter_in(sequence.slot))

    def _guard(self, sequences: Many[Sequence], compute: Callable[[], None], band: Band | None = None) -> None:
        """A computation that raises ends the sequences in it, and no others."""
        sequences, self._acted = list(sequences), True
        try:
            compute()
        except Exception as error:
            log.exception("a forward pass of %d sequences failed", len(sequences))
            if band is not None:
                self._bands.clear(band)
            else:
                self._prefill = None
                for sequence in sequences:
                    self._bands.leave(sequence)
            self._fail(sequences, error)

    def _fail(self, sequences: Many[Sequence], error: BaseException) -> None:
        for sequence in sequences:
            if self.scheduler.ended(sequence):
                self._counts["failed"] += 1
                sequence.fail(error)
