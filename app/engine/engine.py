"""The real engine: one base, its slots and the one thread that owns them, behind ``app.core.ports.Engine``."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError, as_completed
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from app.core.errors import AdapterRefused, InvalidInput, NotFound, NotReady, Overloaded, Problem, SetupError
from app.core.recipe import Recipe
from app.core.records import (
    COUNTERS,
    PLAIN,
    Attachment,
    BaseInfo,
    Completion,
    EngineState,
    GenerationRequest,
    MixtureCompletion,
    MixtureRequest,
    Piece,
    Score,
    ScoreRequest,
    TrainingPlan,
    TrainingReport,
    TrainingRow,
    TrainingStep,
)
from app.engine import mixture, scoring, sequences
from app.engine.adapter_files import AdapterFile, read_adapter
from app.engine.base import BaseOptions, LoadedBase, load_base, load_tokenizer
from app.engine.batcher import Batcher, Limits
from app.engine.detokenize import TextStream
from app.engine.encoding import Encoder
from app.engine.grammar import Grammars
from app.engine.host_tier import HostTier
from app.engine.loop import Loop
from app.engine.memory import free_bytes
from app.engine.passes import passes_beside
from app.engine.rectangle import layout_of
from app.engine.sampling import make_sampler
from app.engine.scheduler import Errand, Scheduler
from app.engine.slot_table import SlotTable
from app.engine.slots import SlotBank, slot_bytes
from app.engine.step_graphs import cuda_recorder
from app.engine.training import train_adapter

_PROBE = "Explain in one sentence what the following figures say and why they matter to the reader: 12, 17 and 31."
_PREFILL_TOKENS = {"cpu": 512, "cuda": 2048}  # a GPU is idle with fewer
_SPARE_WORK = 1.5e12  # tokens · parameters: what a GPU computes while a pass is launched (30 ms at 1e14 a second)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class EngineSizes:
    """How much the engine takes at once. Bytes that are None: a share of what is free once the base is loaded."""

    num_slots: int
    max_rank: int
    max_batch: int
    max_waiting: int | None = None
    prefill_tokens: int | None = None  # of new prompts in a step; None: what suits the device
    cache_bytes: int | None = None
    cache_share: float = 0.5  # of what is free, where ``cache_bytes`` is None
    prefix_bytes: int | None = None
    adapter_bytes: int | None = None  # in host memory
    adapter_device_bytes: int | None = None  # of all slots; None: whatever they take
    has_step_graphs: bool = True  # on CUDA: steps are recorded and replayed


@dataclass(frozen=True, slots=True)
class _Ticket:
    """What came before the base was there."""

    request: GenerationRequest
    on_piece: Callable[[Piece], None] | None
    future: Future[Completion]
    submitted_at: float

    def fail(self, error: BaseException) -> None:
        """Tell the caller why there is no answer; nothing if it has left."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


class TorchEngine:
    """Loads in the background; requests wait until the base is there."""

    def __init__(self, options: BaseOptions, fetch: Callable[[], Path], sizes: EngineSizes) -> None:
        """``fetch`` gives the base's folder; it runs on the owner thread, for it may take minutes."""
        self._options, self._fetch, self._sizes = options, fetch, sizes
        self._encoder: Encoder | None = None
        self._proofs: dict[str, Attachment] = {}
        self._counts = Counter(dict.fromkeys(COUNTERS, 0))
        self._early: list[_Ticket] = []
        self._open: set[Future[Completion]] = set()  # of requests that wait or run
        self._lock = threading.Lock()  # of _early and of _loaded's becoming known
        self._loaded: LoadedBase | None = None
        self._batcher: Batcher | None = None
        self._loop = Loop(prepare=self._load, step=self._step, has_work=self._has_work, rescue=self._rescue)

    @property
    def base(self) -> BaseInfo | None:
        return self._loaded.info if self._loaded else None

    def wait_ready(self, timeout_seconds: float | None = None) -> BaseInfo:
        self._loop.wait_ready(timeout_seconds)
        return self._base.info

    def count(self, text: str) -> int:
        return len(self._reader.prompt(text))

    def clip(self, text: str, num_tokens: int) -> str:
        return self._reader.clip(text, num_tokens)

    def submit(
        self, request: GenerationRequest, *, on_piece: Callable[[Piece], None] | None = None
    ) -> Future[Completion]:
        ticket = _Ticket(request, on_piece, Future(), time.monotonic())
        with self._lock:
            is_early = self._loaded is None
            if is_early:
                self._early.append(ticket)
        try:
            self._loop.call_soon(lambda: None) if is_early else self._enter(ticket)
        except Exception as error:
            ticket.fail(error)
        return ticket.future

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        on_completion: Callable[[int, Completion], None] | None = None,
    ) -> list[Completion]:
        futures = [self.submit(request) for request in requests]
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

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        self.wait_ready()
        with self._holding(request.adapter for request in requests):
            return scoring.score(self._passes, requests)

    def generate_mixture(self, requests: Sequence[MixtureRequest]) -> list[MixtureCompletion]:
        self.wait_ready()
        with self._holding(request.adapter for request in requests):
            return mixture.generate_mixtures(self._passes, requests)

    def attach(self, adapter: str, folder: Path, *, pin: bool = False) -> Attachment:
        self.wait_ready()
        if adapter not in self._proofs:
            self._keep(adapter)
        self._host.load(adapter, lambda: self._read(adapter, folder))
        if pin:
            self._pin(adapter)
        if (proof := self._proofs.get(adapter)) is None:
            proof = self._proofs[adapter] = self._prove(adapter)
        self._table.use(adapter)
        return replace(proof, slot=self._table.slot_of(adapter))

    def use(self, adapter: str) -> bool:
        if adapter not in self._proofs or self._host.get(adapter) is None:
            return False
        self._table.use(adapter)
        return True

    def detach(self, adapter: str) -> None:
        if self._proofs.pop(adapter, None) is not None:
            self._loop.call_soon(lambda: self._batching.residents.detach(adapter))

    def attachments(self) -> list[Attachment]:
        proofs = list(self._proofs.values())
        return [
            replace(proof, slot=self._table.slot_of(proof.adapter)) for proof in proofs if proof.adapter in self._host
        ]

    def train(
        self,
        rows: Iterable[TrainingRow],
        *,
        recipe: Recipe,
        folder: Path,
        on_step: Callable[[TrainingStep], None],
        plan: TrainingPlan = PLAIN,
        checkpoints: Path | None = None,
    ) -> TrainingReport:
        self.wait_ready()
        with self._loop.paused(), self._bank.removed():
            return train_adapter(
                self._base, rows, recipe=recipe, folder=folder, on_step=on_step, plan=plan, checkpoints=checkpoints
            )

    def stats(self) -> Mapping[str, int | float]:
        batcher = self._batcher
        waiting = len(self._early) + (batcher.num_waiting if batcher else 0)
        slot_waits = batcher.scheduler.slot_waits if batcher else 0
        host_evictions = self._host.evictions if batcher else 0
        return {**self._counts, "waiting": waiting, "slot_waits": slot_waits, "host_evictions": host_evictions}

    def state(self) -> EngineState:
        self.wait_ready(0)
        told: Future[EngineState] = Future()
        self._loop.call_soon(lambda: told.set_result(self._batching.state(num_slots=self._num_slots)))
        return told.result()

    def close(self) -> None:
        self._loop.close()

    @property
    def _base(self) -> LoadedBase:
        assert self._loaded is not None, "wait_ready comes first"
        return self._loaded

    @property
    def _batching(self) -> Batcher:
        assert self._batcher is not None, "wait_ready comes first"
        return self._batcher

    @property
    def _reader(self) -> Encoder:
        if self._encoder is None:
            raise NotReady("the base is still loading")
        return self._encoder

    def _load(self) -> None:
        sizes, folder = self._sizes, self._fetch()
        tokenizer = load_tokenizer(folder, name=self._options.name)
        self._encoder = Encoder(tokenizer)
        base = load_base(self._options, folder, tokenizer=tokenizer)
        try:
            layout = layout_of(base.model, base.eos_id)
        except Exception as error:
            raise SetupError(f"the base {base.info.name!r} cannot be served side by side: {error}") from error
        dtype = getattr(torch, base.info.dtype)
        self._num_slots = self._slots_that_fit(base, dtype)
        self._table = SlotTable(self._num_slots)
        self._bank = SlotBank(base.model, num_slots=self._num_slots, max_rank=sizes.max_rank, dtype=dtype)
        self._grammars = Grammars(tokenizer, vocab_size=base.num_embeddings, eos_ids=base.eos_ids)
        free = free_bytes(base.device)
        self._host = HostTier(sizes.adapter_bytes if sizes.adapter_bytes is not None else free_bytes() // 8)
        limits = Limits(
            max_batch=sizes.max_batch,
            prefill_tokens=sizes.prefill_tokens or _PREFILL_TOKENS[base.device.type],
            spare_tokens=int(_SPARE_WORK / base.info.num_parameters) if base.device.type == "cuda" else 0,
            cache_bytes=sizes.cache_bytes if sizes.cache_bytes is not None else int(free * sizes.cache_share),
            prefix_bytes=sizes.prefix_bytes if sizes.prefix_bytes is not None else free // 16,
        )
        self._batcher = Batcher(
            base,
            layout,
            self._bank,
            Scheduler(self._table),
            self._host,
            limits,
            probe_ids=base.encode(_PROBE),
            counts=self._counts,
            record=cuda_recorder() if base.device.type == "cuda" and sizes.has_step_graphs else None,
        )
        self._passes = passes_beside(
            self._batcher, base, layout, run=self._run, step_tokens=limits.prefill_tokens, num_rows=sizes.max_batch
        )
        with self._lock:
            self._loaded = base
            early, self._early = self._early, []
        for ticket in early:
            try:
                self._enter(ticket)
            except Exception as error:
                ticket.fail(error)

    def _slots_that_fit(self, base: LoadedBase, dtype: torch.dtype) -> int:
        """As many as are wanted, or as SELFSPEC_ADAPTER_DEVICE_BYTES has room for; SetupError if that is none."""
        most = self._sizes.adapter_device_bytes
        if most is None:
            return self._sizes.num_slots
        one = slot_bytes(base.model, max_rank=self._sizes.max_rank, dtype=dtype)
        if most < one:
            raise SetupError(f"SELFSPEC_ADAPTER_DEVICE_BYTES is {most:,}, but one slot takes {one:,} bytes")
        return min(self._sizes.num_slots, most // one)

    def _step(self) -> bool:
        return self._batching.step()

    def _has_work(self) -> bool:
        return self._batcher is not None and self._batcher.has_work

    def _rescue(self, error: BaseException) -> None:
        """On the owner thread: a step raised, or there will be no more steps."""
        with self._lock:
            early, self._early = self._early, []
        for ticket in early:
            ticket.fail(error)
        if self._batcher is not None:
            self._batcher.fail_running(error)
            if isinstance(error, NotReady):
                self._batcher.fail_waiting(error)

    def _enter(self, ticket: _Ticket) -> None:
        """Into the line of its expert. Raises whatever stands against the request."""
        most = self._sizes.max_waiting
        if most is not None and len(self._open) >= most + self._sizes.max_batch:
            raise Overloaded(f"{most:,} requests wait already (SELFSPEC_MAX_WAITING); try again")
        sequence = self._sequence(ticket)
        adapter = sequence.adapter
        if adapter is not None:
            self._hold(adapter)
            sequence.future.add_done_callback(lambda future: self._host.release(adapter))
        self._open.add(sequence.future)
        sequence.future.add_done_callback(self._open.discard)
        self._loop.call_soon(lambda: self._batching.scheduler.add(sequence))

    def _sequence(self, ticket: _Ticket) -> sequences.Sequence:
        request, base = ticket.request, self._base
        prompt_ids = base.encode(request.prompt)
        if base.info.context_tokens - len(prompt_ids) < request.max_new_tokens:
            reason = (
                f"the prompt has {len(prompt_ids)} tokens and asks for {request.max_new_tokens} more; "
                f"the base reads {base.info.context_tokens}"
            )
            raise InvalidInput([Problem("input", reason)])
        grammar = self._grammars.compile(request.schema) if request.schema is not None else None
        sequence = sequences.Sequence(
            request=request,
            prompt_ids=prompt_ids,
            stream=TextStream(base.tokenizer, request.stop),
            sampler=make_sampler(request.temperature, request.top_p, request.seed),
            eos_ids=base.eos_ids,
            constraint=grammar.start() if grammar is not None else None,
            on_piece=ticket.on_piece,
            future=ticket.future,
            submitted_at=ticket.submitted_at,
        )
        self._batching.check(sequence)
        return sequence

    def _run(self, adapter: str | None, compute: Callable[[int], _T]) -> _T:
        """Wait for a slot and for what is computed in it, between two steps."""
        errand = Errand(adapter, compute)
        self._loop.call_soon(lambda: self._batching.scheduler.add(errand))
        result: _T = errand.future.result()
        return result

    def _hold(self, adapter: str) -> None:
        """Keep an adapter in host memory until it is released. Raises NotFound for one that is not attached."""
        if adapter not in self._proofs or not self._host.hold(adapter):
            raise NotFound(f"adapter {adapter} is not attached", param="adapter")

    @contextmanager
    def _holding(self, adapters: Iterable[str | None]) -> Iterator[None]:
        """Keep them all until the block ends."""
        with ExitStack() as held:
            for adapter in {adapter for adapter in adapters if adapter is not None}:
                self._hold(adapter)
                held.callback(self._host.release, adapter)
            yield

    def _read(self, adapter: str, folder: Path) -> AdapterFile:
        """From disk, refused before it costs anybody anything."""
        info = self._base.info
        file = read_adapter(folder, dtype=getattr(torch, info.dtype))
        if file.base_fingerprint not in (None, info.fingerprint):
            raise AdapterRefused(
                f"adapter {adapter} was trained on a base with fingerprint {file.base_fingerprint}; this service runs "
                f"{info.name} ({info.quantization}), {info.fingerprint}",
                param="adapter",
            )
        self._bank.check(file.pairs)
        self._counts["attachments"] += 1
        return file

    def _prove(self, adapter: str) -> Attachment:
        """Wait for a slot and for what the adapter does in it; one that does not act is dropped."""
        if not self._host.hold(adapter):
            raise NotReady(f"adapter {adapter} was evicted while it was attached; try again")
        try:
            return self._run(adapter, lambda slot: self._batching.residents.prove(adapter, slot))
        except AdapterRefused:
            self._loop.call_soon(lambda: self._batching.residents.detach(adapter))
            raise
        finally:
            self._host.release(adapter)

    def _keep(self, adapter: str) -> None:
        """Wait until the owner thread, which may have been told to let it go, knows that it is wanted again."""
        is_known = threading.Event()
        self._loop.call_soon(lambda: self._batching.residents.keep(adapter))
        self._loop.call_soon(is_known.set)
        is_known.wait()

    def _pin(self, adapter: str) -> None:
        scheduler = self._batching.scheduler
        if not scheduler.is_pinned(adapter) and scheduler.num_pinned >= self._num_slots:
            raise NotReady(f"all {self._num_slots} slots are pinned; unpin one or raise SELFSPEC_ADAPTER_SLOTS")
        scheduler.pin(adapter)
        self._host.pin(adapter)
