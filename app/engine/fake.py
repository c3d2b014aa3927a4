"""The fake engine: the same ports as the real one, no torch, no weights, answers in microseconds.

Deterministic: an answer is a function of prompt, adapter and seed (``fake_text``), written in the thread that asks. It
"learns" an adapter as a real PEFT-shaped folder whose content depends on the rows, keeps adapters in host memory and in
slots (``fake_places``), and refuses what the real engine refuses. A test can hold answers back (``hold``) and wait for
what has happened (``wait_stats``). It judges nothing about quality.
"""

from __future__ import annotations

import hashlib
import json
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.errors import AdapterRefused, DeadlineExceeded, NotFound, NotReady, Overloaded
from app.core.recipe import Recipe
from app.core.records import (
    COUNTERS,
    PLAIN,
    Attachment,
    BaseInfo,
    Completion,
    EngineState,
    ExpertLoad,
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
from app.engine import fake_likelihood
from app.engine.fake_places import ADAPTER_BYTES, Places
from app.engine.fake_text import Written, clip, tokens_of, write
from app.engine.request_checks import check_fits, check_mixture
from app.engine.training_batches import BatchOrder

_PROMPTS_KNOWN = 64  # of each adapter
PEAK_BYTES, FREE_BYTES = 64 * 1024**2, 8 * 1024**3  # that it says it takes and has


@dataclass(slots=True)
class _Run:
    """One request on its way. Times are the engine's clock's."""

    request: GenerationRequest
    written: Written
    future: Future[Completion]
    on_piece: Callable[[Piece], None] | None
    submitted: float
    placed: float | None = None  # in the batch since; None: waits
    first: float | None = None  # when its first piece was told
    told: int = 0  # pieces

    @property
    def deadline(self) -> float:
        seconds = self.request.timeout_seconds
        return float("inf") if seconds is None else self.submitted + seconds


class FakeEngine:
    """Implements ``app.core.ports.Engine``."""

    def __init__(
        self,
        *,
        slots: int = 8,
        base_name: str = "fake-base",
        loaded: bool = True,
        context_tokens: int = 8192,
        max_batch: int = 64,
        max_waiting: int = 1024,
        host_adapters: int = 64,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``host_adapters`` fit into host memory; ``max_waiting`` requests may wait for a place in the batch."""
        self._changed = threading.Condition(threading.RLock())  # held for every look and change
        self._max_batch, self._max_waiting, self._clock, self._loaded = max_batch, max_waiting, clock, loaded
        self._runs: list[_Run] = []
        self._read: dict[str | None, deque[list[str]]] = {}  # what each adapter read last: the fake prefix cache
        self._may_tell: int | None = None  # pieces that a request may tell while ``hold`` lasts
        self._counts = Counter(dict.fromkeys(COUNTERS, 0))
        self._places = Places(slots, host_adapters, self._counts)
        self._base = BaseInfo(
            name=base_name,
            fingerprint=hashlib.sha256(base_name.encode()).hexdigest()[:16],
            quantization="none",
            dtype="float32",
            device="cpu",
            context_tokens=context_tokens,
            num_parameters=1000,
        )

    @property
    def base(self) -> BaseInfo | None:
        return self._base if self._loaded else None

    def wait_ready(self, timeout_seconds: float | None = None) -> BaseInfo:
        if not self._loaded:
            raise NotReady("the base is still loading")
        return self._base

    def count(self, text: str) -> int:
        return len(tokens_of(text))

    def clip(self, text: str, num_tokens: int) -> str:
        return clip(text, num_tokens)

    @contextmanager
    def hold(self, *, after_pieces: int = 0) -> Iterator[None]:
        """For tests: until the block ends, no request tells more than ``after_pieces`` pieces, and none finishes.

        With 0 none is even begun: all wait.
        """
        with self._changed:
            self._may_tell = after_pieces
        try:
            yield
        finally:
            with self._changed:
                self._may_tell = None
                self._work()

    def wait_stats(self, *, timeout_seconds: float = 30.0, **at_least: int) -> None:
        """For tests: block until every named counter is that high; raises TimeoutError."""

        def has_come() -> bool:
            stats = self.stats()
            return all(stats[name] >= least for name, least in at_least.items())

        with self._changed:
            if not self._changed.wait_for(has_come, timeout_seconds):
                raise TimeoutError(f"{at_least} did not come; there is {self.stats()}")

    def submit(
        self, request: GenerationRequest, *, on_piece: Callable[[Piece], None] | None = None
    ) -> Future[Completion]:
        future: Future[Completion] = Future()
        with self._changed:
            try:
                self._check(request)
                run = _Run(request, write(request), future, on_piece, submitted=self._clock())
            except Exception as error:
                self._counts["failed"] += 1
                future.set_exception(error)
                return future
            self._runs.append(run)
            future.add_done_callback(lambda done: self._forget(run) if done.cancelled() else None)
            self._advance(run)
            self._changed.notify_all()
        return future

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        on_completion: Callable[[int, Completion], None] | None = None,
    ) -> list[Completion]:
        answers = []
        for position, request in enumerate(requests):
            answers.append(self.submit(request).result())
            if on_completion is not None:
                on_completion(position, answers[-1])
        return answers

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        self.wait_ready()
        for request in requests:
            num_new = self.count(request.continuation) + request.with_end
            self._check_fits("prompt", request.adapter, request.prompt, num_new)
        return [fake_likelihood.score(request) for request in requests]

    def generate_mixture(self, requests: Sequence[MixtureRequest]) -> list[MixtureCompletion]:
        self.wait_ready()
        for request in requests:
            check_mixture(request)
            for prompt in request.prompts:
                self._check_fits("prompts", request.adapter, prompt, request.max_new_tokens)
        return [fake_likelihood.mix(request) for request in requests]

    def attach(self, adapter: str, folder: Path, *, pin: bool = False) -> Attachment:
        with self._changed:
            self.wait_ready()
            if adapter not in self._places:
                config = _read_config(folder)
                if (made_on := config.get("base_model_name_or_path")) != self._base.name:
                    raise AdapterRefused(f"adapter {adapter} was made on {made_on}", param="adapter")
                self._places.load(adapter, rank=config.get("r", 8), busy=self._busy())
            return self._places.use(adapter, pin=pin, busy=self._busy())

    def use(self, adapter: str) -> bool:
        with self._changed:
            if is_there := adapter in self._places:
                self._places.use(adapter, pin=False, busy=())
            return is_there

    def detach(self, adapter: str) -> None:
        with self._changed:
            self._places.drop(adapter, busy=self._busy())

    def attachments(self) -> list[Attachment]:
        with self._changed:
            return self._places.attachments()

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
        learned, is_seed, tokens = hashlib.sha256(repr((recipe.seed, plan.max_steps, plan.seed_share)).encode()), [], 0
        if plan.start is not None:
            learned.update((Path(plan.start) / "adapter_model.safetensors").read_bytes())
        for row in rows:
            learned.update(repr((row.prompt, row.target, row.weight, row.is_seed)).encode())
            is_seed.append(row.is_seed)
            tokens += self.count(row.prompt) + self.count(row.target)
        order = BatchOrder(is_seed, batch_size=recipe.batch_size, seed_share=plan.seed_share, seed=recipe.seed)
        an_epoch = max(1, order.steps_an_epoch)
        num_steps = plan.max_steps or an_epoch * recipe.epochs
        for step in range(1, num_steps + 1):
            loss, read = 2.0 - step / num_steps, tokens * step // an_epoch
            on_step(TrainingStep(step, num_steps, step / an_epoch, loss, recipe.learning_rate, read, 0.0))
        write_fake_adapter(folder, base_name=self._base.name, rank=recipe.lora_rank, weights=learned.digest())
        tokens = tokens * num_steps // an_epoch
        return TrainingReport(num_steps, len(is_seed), 0, tokens, 0.0, 2.0, 1.0, num_parameters=64, num_modules=1)

    def stats(self) -> Mapping[str, int | float]:
        with self._changed:
            return {**self._counts, "waiting": sum(run.placed is None for run in self._runs)}

    def state(self) -> EngineState:
        with self._changed:
            self.wait_ready()
            running = Counter(run.request.adapter for run in self._runs if run.placed is not None)
            waiting = Counter(run.request.adapter for run in self._runs if run.placed is None)
            places = self._places
            return EngineState(
                num_slots=places.num_slots,
                max_batch=self._max_batch,
                running=running.total(),
                waiting=waiting.total(),
                slot_bytes=ADAPTER_BYTES,
                host_bytes=ADAPTER_BYTES * len(places.attachments()),
                host_budget=ADAPTER_BYTES * places.host_adapters,
                cache_bytes=0,
                cache_budget=0,
                prefix_bytes=0,
                prefix_budget=0,
                steps_by_rows={1: self._counts["batches"]},
                rows_by_slots={1: self._counts["adapter_rows"]},
                peak_bytes=PEAK_BYTES,
                free_bytes=FREE_BYTES,
                experts=(
                    ExpertLoad(None, 0, 0, is_pinned=True, running=running[None], waiting=waiting[None]),
                    *(
                        ExpertLoad(
                            proof.adapter,
                            proof.slot,
                            proof.num_bytes,
                            is_pinned=places.is_pinned(proof.adapter),
                            running=running[proof.adapter],
                            waiting=waiting[proof.adapter],
                        )
                        for proof in places.attachments()
                    ),
                ),
            )

    def close(self) -> None:
        with self._changed:
            self._loaded = False
            for run in list(self._runs):
                self._end(run, NotReady("the engine is closed"))

    def _check(self, request: GenerationRequest) -> None:
        self.wait_ready()
        self._check_fits("input", request.adapter, request.prompt, request.max_new_tokens)
        if self.stats()["waiting"] >= self._max_waiting:
            raise Overloaded(f"{self._max_waiting} requests wait; ask again later")

    def _check_fits(self, param: str, adapter: str | None, prompt: str, num_new: int) -> None:
        with self._changed:
            if adapter is not None and adapter not in self._places:
                raise NotFound(f"adapter {adapter} is not attached", param="adapter")
        check_fits(param, num_tokens=self.count(prompt), num_new=num_new, context_tokens=self._base.context_tokens)

    def _work(self) -> None:
        """Go on with every request as far as it may; one that ends may let another begin."""
        while any(self._advance(run) for run in list(self._runs)):
            pass
        self._changed.notify_all()

    def _advance(self, run: _Run) -> bool:
        """Whether the request has ended."""
        if run not in self._runs:  # its caller left while another was told
            return False
        if self._clock() >= run.deadline:
            self._counts["timeouts"] += 1
            early = DeadlineExceeded(f"nothing was written in {run.request.timeout_seconds} s")
            self._end(run, self._completion(run, "timeout") if run.told else early)
        elif self._is_placed(run):
            self._tell(run)
            if self._may_tell is None:
                self._end(run, self._completion(run, run.written.finish_reason))
        return run.future.done()

    def _is_placed(self, run: _Run) -> bool:
        """Whether it has a place in the batch now, and its adapter a slot."""
        if run.placed is None and self._may_tell != 0:
            running = [other.request.adapter for other in self._runs if other.placed is not None]
            adapter = run.request.adapter
            if len(running) < self._max_batch and (adapter is None or self._places.place(adapter, busy=running)):
                run.placed = self._clock()
        return run.placed is not None

    def _busy(self) -> set[str]:
        """Adapters of requests that wait or run."""
        return {run.request.adapter for run in self._runs if run.request.adapter is not None}

    def _tell(self, run: _Run) -> None:
        for piece in run.written.pieces[run.told : self._may_tell]:
            run.told += 1
            run.first = run.first or self._clock()
            if run.on_piece is not None:
                run.on_piece(piece)

    def _completion(self, run: _Run, finish_reason: str) -> Completion:
        pieces, now, placed = run.written.pieces[: run.told], self._clock(), run.placed or run.submitted
        words, adapter = tokens_of(run.request.prompt), run.request.adapter
        read = self._read.setdefault(adapter, deque(maxlen=_PROMPTS_KNOWN))
        cached = max((_num_alike(words[:-1], other) for other in read), default=0)
        read.append(words)
        counts = {"requests": 1, "prompt_tokens": len(words), "generated_tokens": len(pieces), "cached_tokens": cached}
        rows = {"batches": 1, "batch_rows": 1, "adapter_rows": int(adapter is not None)}
        self._counts.update({**counts, **rows, "prefill_tokens": len(words) - cached})
        return Completion(
            text="".join(piece.text for piece in pieces),
            finish_reason=finish_reason,
            prompt_tokens=len(words),
            completion_tokens=len(pieces),
            adapter=adapter,
            queue_seconds=placed - run.submitted,
            seconds=now - placed,
            first_token_seconds=(run.first or now) - run.submitted,
            cached_tokens=cached,
            logprobs=tuple(told for piece in pieces for told in piece.logprobs),
        )

    def _end(self, run: _Run, outcome: Completion | Exception) -> None:
        self._runs.remove(run)
        self._places.free(busy=self._busy())
        with suppress(InvalidStateError):  # cancelled at this moment
            if isinstance(outcome, Completion):
                run.future.set_result(outcome)
            else:
                self._counts["failed"] += not isinstance(outcome, DeadlineExceeded)
                run.future.set_exception(outcome)

    def _forget(self, run: _Run) -> None:
        """Its caller left."""
        with self._changed:
            self._counts["cancelled"] += 1
            if run in self._runs:
                self._runs.remove(run)
            self._places.free(busy=self._busy())
            self._work()


def write_fake_adapter(folder: Path, *, base_name: str, rank: int = 8, weights: bytes = b"\0" * 32) -> None:
    """A folder of PEFT's shape: adapter_config.json and a well-formed safetensors file of one small tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"peft_type": "LORA", "base_model_name_or_path": base_name, "r": rank, "lora_alpha": 2 * rank}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["linear"]}))
    entry = {"dtype": "U8", "shape": [len(weights)], "data_offsets": [0, len(weights)]}
    header = json.dumps({"base_model.model.linear.lora_A.weight": entry}).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + weights)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "adapter_config.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise AdapterRefused(f"{folder.name} is not a PEFT adapter folder: {error}", param="adapter") from error


def _num_alike(words: Sequence[str], others: Sequence[str]) -> int:
    """How many words both begin with."""
    pairs = enumerate(zip(words, others, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(words), len(others)))
