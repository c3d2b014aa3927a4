"""One thread owns the model; everybody else sends it requests through this queue.

Knows nothing of torch: what a batch does is the ``run_batch`` it is given. A batch that raises fails the requests in it
and no others, and the thread lives on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from app.core.errors import NotReady
from app.core.records import Completion, GenerationRequest

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Ticket:
    """A request on its way; ``future`` ends with the completion or the reason there is none."""

    request: GenerationRequest
    future: Future[Completion] = field(default_factory=Future)
    submitted_at: float = field(default_factory=time.monotonic)

    def end(self, result: Completion | BaseException) -> None:
        """Give the caller its answer, or the reason why there is none; nothing if it has one or has left.

        The future stays pending while its row is computed, so that a caller who leaves can still cancel it.
        """
        with suppress(InvalidStateError):
            if isinstance(result, Completion):
                self.future.set_result(result)
            else:
                self.future.set_exception(result)


class ModelThread:
    """The owner thread: takes what waits, at most ``max_batch`` at a time, and hands it to ``run_batch``."""

    def __init__(
        self,
        run_batch: Callable[[Sequence[Ticket]], None],
        *,
        max_batch: int,
        prepare: Callable[[], None] = lambda: None,
        order: Callable[[Ticket], int] = lambda ticket: 0,
    ) -> None:
        """``prepare`` runs first, on the thread (it loads the model); ``order`` groups tickets of like cost."""
        self._run_batch, self._max_batch, self._prepare, self._order = run_batch, max_batch, prepare, order
        self._waiting: list[Ticket] = []
        self._turn = threading.Condition()
        self._closed = False
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def submit(self, requests: Sequence[GenerationRequest]) -> list[Ticket]:
        """Queue requests together; those of one call are batched with like ones. They fail if the thread has ended."""
        tickets = [Ticket(request) for request in requests]
        with self._turn:
            runs = not self._closed and self._failure is None
            if runs:
                self._waiting.extend(tickets)
                self._turn.notify()
        if not runs:
            _fail(tickets, self._failure or NotReady("the engine was closed"))
        return tickets

    def wait_ready(self, timeout_seconds: float | None = None) -> None:
        """Block until ``prepare`` is done; raises what it raised, or NotReady on time-out and after the end."""
        if self._closed:
            raise NotReady("the engine was closed")
        if not self._ready.wait(timeout_seconds):
            raise NotReady("the base is still loading")
        if self._failure is not None:
            raise self._failure

    @property
    def num_waiting(self) -> int:
        with self._turn:
            return len(self._waiting)

    def close(self) -> None:
        """End after the batch in flight; what still waits fails with NotReady."""
        with self._turn:
            self._closed = True
            left, self._waiting = self._waiting, []
            self._turn.notify()
        _fail(left, NotReady("the engine was closed"))
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._prepare()
        except BaseException as error:
            log.exception("the base could not be loaded")
            with self._turn:
                self._failure = error
                left, self._waiting = self._waiting, []
            _fail(left, error)
        finally:
            self._ready.set()
        while self._failure is None and (batch := self._next_batch()):
            self._attempt(batch)

    def _next_batch(self) -> list[Ticket]:
        with self._turn:
            while not self._waiting and not self._closed:
                self._turn.wait()
            if self._closed:
                return []
            oldest = self._waiting[0]
            ordered = sorted(self._waiting, key=self._order)
            # the oldest ticket is always served next; its neighbours by cost fill the batch
            middle = ordered.index(oldest)
            start = max(0, min(middle - self._max_batch // 2, len(ordered) - self._max_batch))
            batch = ordered[start : start + self._max_batch]
            taken = set(map(id, batch))
            self._waiting = [ticket for ticket in self._waiting if id(ticket) not in taken]
            return batch

    def _attempt(self, batch: list[Ticket]) -> None:
        live = [ticket for ticket in batch if not ticket.future.cancelled()]
        if not live:
            return
        try:
            self._run_batch(live)
        except Exception as error:
            log.exception("a batch of %d requests failed", len(live))
            _fail(live, error)
        else:
            _fail(live, RuntimeError("the engine ended a batch without an answer"))


def _fail(tickets: Sequence[Ticket], error: BaseException) -> None:
    for ticket in tickets:
        ticket.end(error)
