"""The real engine: one base, its slots and the one thread that owns them, behind ``app.core.ports.Engine``."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from pathlib import Path

import torch

from app.core.errors import AdapterRefused, InvalidInput, NotFound, NotReady, Problem, SelfspecError
from app.core.recipe import Recipe
from app.core.records import (
    Attachment,
    BaseInfo,
    Completion,
    GenerationRequest,
    TrainingReport,
    TrainingRow,
    TrainingStep,
)
from app.engine.adapter_files import AdapterFile, read_adapter
from app.engine.base import BaseOptions, LoadedBase, load_base, load_tokenizer
from app.engine.decoding import Decoder, Row, make_sampler
from app.engine.encoding import Encoder
from app.engine.queue import ModelThread, Ticket
from app.engine.slot_table import SlotTable
from app.engine.slots import SlotBank
from app.engine.training import train_adapter

_PROBE = "Explain in one sentence what the following figures say and why they matter to the reader: 12, 17 and 31."
_COUNTED = ("requests", "prompt_tokens", "generated_tokens", "batches", "attachments", "evictions")
_LEAST_DISTANCE = 1e-6  # nats; below this an adapter acts like no adapter


class TorchEngine:
    """Loads in the background; requests wait in the queue until the base is there."""

    def __init__(
        self, options: BaseOptions, fetch: Callable[[], Path], *, num_slots: int, max_rank: int, max_batch: int
    ) -> None:
        """``fetch`` gives the base's folder; it runs on the owner thread, for it may take minutes."""
        self._options, self._fetch, self._num_slots, self._max_rank = options, fetch, num_slots, max_rank
        self._encoder: Encoder | None = None
        self._table = SlotTable(num_slots)
        self._attached: dict[str, Attachment] = {}
        self._counts = Counter(dict.fromkeys(_COUNTED, 0))
        self._model_lock = threading.Lock()  # held by whoever runs the model: a batch, an attachment, a training
        self._loaded: LoadedBase | None = None
        self._thread = ModelThread(
            self._run_batch, max_batch=max_batch, prepare=self._load, order=lambda ticket: len(ticket.request.prompt)
        )

    @property
    def base(self) -> BaseInfo | None:
        return self._loaded.info if self._loaded else None

    def wait_ready(self, timeout_seconds: float | None = None) -> BaseInfo:
        self._thread.wait_ready(timeout_seconds)
        return self._base.info

    def count(self, text: str) -> int:
        if self._encoder is None:
            raise NotReady("the base is still loading")
        return len(self._encoder.prompt(text))

    def submit(
        self, request: GenerationRequest, *, on_piece: Callable[[Piece], None] | None = None
    ) -> Future[Completion]:
        return self._thread.submit([request])[0].future

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        on_completion: Callable[[int, Completion], None] | None = None,
    ) -> list[Completion]:
        futures = [ticket.future for ticket in self._thread.submit(requests)]
        position_of = {future: position for position, future in enumerate(futures)}
        try:
            for future in as_completed(position_of):
                completion = future.result()
                if on_completion is not None:
                    on_completion(position_of[future], completion)
        except BaseException:
            for future in futures:  # nobody will read the rest
                future.cancel()
            raise
        return [future.result() for future in futures]

    def attach(self, adapter: str, folder: Path) -> Attachment:
        self.wait_ready()
        self._table.use(adapter)
        if (there := self._attached.get(adapter)) is not None:
            return there  # without the lock: a batch may hold it for seconds
        file = read_adapter(folder)
        self._check_origin(adapter, file)
        self._bank.check(file.pairs)  # before it costs another adapter its slot
        with self._model_lock:
            return self._attached.get(adapter) or self._place(adapter, file)

    def detach(self, adapter: str) -> None:
        with self._model_lock:
            if self._attached.pop(adapter, None) is not None:
                self._bank.clear(self._table.release(adapter))

    def attachments(self) -> list[Attachment]:
        return list(self._attached.values())

    def train(
        self,
        rows: Sequence[TrainingRow],
        *,
        recipe: Recipe,
        folder: Path,
        on_step: Callable[[TrainingStep], None],
    ) -> TrainingReport:
        self.wait_ready()
        with self._model_lock, self._bank.removed():
            return train_adapter(self._base, rows, recipe=recipe, folder=folder, on_step=on_step)

    def stats(self) -> Mapping[str, int | float]:
        return {**self._counts, "waiting": self._thread.num_waiting}

    def close(self) -> None:
        self._thread.close()

    @property
    def _base(self) -> LoadedBase:
        assert self._loaded is not None, "wait_ready comes first"
        return self._loaded

    def _load(self) -> None:
        folder = self._fetch()
        tokenizer = load_tokenizer(folder, name=self._options.name)
        self._encoder = Encoder(tokenizer)
        base = load_base(self._options, folder, tokenizer=tokenizer)
        dtype = getattr(torch, base.info.dtype)
        self._bank = SlotBank(base.model, num_slots=self._num_slots, max_rank=self._max_rank, dtype=dtype)
        self._decoder = Decoder(base, self._bank.segments)
        self._probe_ids = base.encode(_PROBE)
        self._loaded = base

    def _check_origin(self, adapter: str, file: AdapterFile) -> None:
        if file.base_fingerprint not in (None, self._base.info.fingerprint):
            raise AdapterRefused(
                f"adapter {adapter} was trained on a base with fingerprint {file.base_fingerprint}; this service runs "
                f"{self._base.info.name} ({self._base.info.quantization}), {self._base.info.fingerprint}",
                param="adapter",
            )

    def _place(self, adapter: str, file: AdapterFile) -> Attachment:
        """Write a slot and prove that it acts; an adapter that does not is taken out again."""
        slot, evicted = self._table.take(adapter)
        if evicted is not None:
            del self._attached[evicted]
            self._counts["evictions"] += 1
        try:
            self._bank.write(slot, file.pairs)
            distance = self._distance(slot)
            if not math.isfinite(distance):
                raise AdapterRefused(f"adapter {adapter} makes the base compute no numbers", param="adapter")
            if distance < _LEAST_DISTANCE:
                raise AdapterRefused(f"adapter {adapter} changes nothing: probe distance {distance}", param="adapter")
        except BaseException:
            self._bank.clear(self._table.release(adapter))
            raise
        self._counts["attachments"] += 1
        proof = Attachment(adapter, slot, len(file.pairs), file.rank, file.num_bytes, distance)
        self._attached[adapter] = proof
        return proof

    def _distance(self, slot: int) -> float:
        ours = self._decoder.log_probabilities(self._probe_ids, slot)
        bare = self._decoder.log_probabilities(self._probe_ids, 0)
        return float((ours - bare).abs().mean())

    def _run_batch(self, tickets: Sequence[Ticket]) -> None:
        with self._model_lock:
            started = time.monotonic()
            ticket_of = {row: ticket for ticket in tickets if (row := self._admit(ticket)) is not None}
            if ticket_of:
                self._counts["batches"] += 1
                adapter_in = {proof.slot: adapter for adapter, proof in self._attached.items()}
                self._decoder.run(
                    list(ticket_of),
                    on_row_end=lambda row: self._finish(ticket_of[row], row, adapter_in.get(row.slot), started),
                )

    def _admit(self, ticket: Ticket) -> Row | None:
        """A row for the batch, or None after telling the caller why not."""
        try:
            return self._row(ticket)
        except SelfspecError as error:
            ticket.end(error)
            return None

    def _row(self, ticket: Ticket) -> Row:
        request = ticket.request
        slot = 0 if request.adapter is None else self._table.use(request.adapter)
        if slot is None:
            raise NotFound(f"adapter {request.adapter} is not attached", param="adapter")
        prompt_ids = self._base.encode(request.prompt)
        room = self._base.info.context_tokens - len(prompt_ids)
        if room < request.max_new_tokens:
            reason = (
                f"the prompt has {len(prompt_ids)} tokens and asks for {request.max_new_tokens} more; "
                f"the base reads {self._base.info.context_tokens}"
            )
            raise InvalidInput([Problem("input", reason)])
        sampler = make_sampler(request.temperature, request.top_p, request.seed)
        return Row(prompt_ids, slot, sampler, request.max_new_tokens, request.stop, ticket.future.cancelled)

    def _finish(self, ticket: Ticket, row: Row, adapter: str | None, started: float) -> None:
        self._counts["requests"] += 1
        self._counts["prompt_tokens"] += len(row.prompt_ids)
        self._counts["generated_tokens"] += len(row.token_ids)
        if row.finish_reason == "error":
            ticket.end(SelfspecError(f"{adapter or 'the base'} computed no numbers for this prompt"))
            return
        ticket.end(
            Completion(
                text=row.text,
                finish_reason=row.finish_reason or "length",
                prompt_tokens=len(row.prompt_ids),
                completion_tokens=len(row.token_ids),
                adapter=adapter,
                queue_seconds=started - ticket.submitted_at,
                seconds=time.monotonic() - started,
            )
        )
