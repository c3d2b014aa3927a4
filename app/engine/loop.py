"""The thread that owns the model: it steps while there is work, and does what others ask between two steps.

Knows nothing of torch. A step that raises is told to ``rescue``, and the thread lives on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.core.errors import NotReady

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 0.05  # how long to wait before looking again, when nothing that waits can run


class Loop:
    """``prepare`` first, then ``step`` again and again. ``step`` says whether it did anything."""

    def __init__(
        self,
        *,
        prepare: Callable[[], None],
        step: Callable[[], bool],
        has_work: Callable[[], bool],
        rescue: Callable[[BaseException], None],
    ) -> None:
        self._prepare, self._step, self._has_work, self._rescue = prepare, step, has_work, rescue
        self._asked: list[Callable[[], object]] = []
        self._turn = threading.Condition()
        self._closed = False
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def call_soon(self, task: Callable[[], object]) -> None:
        """Run ``task`` on the thread before the next step. Raises what made the thread end, or NotReady once closed."""
        with self._turn:
            self._check()
            self._asked.append(task)
            self._turn.notify()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No step is taken meanwhile: the model belongs to the caller."""
        parked, resume = threading.Event(), threading.Event()

        def park() -> None:
            parked.set()
            resume.wait()

        self.call_soon(park)
        parked.wait()
        try:
            yield
        finally:
            resume.set()

    def wait_ready(self, timeout_seconds: float | None = None) -> None:
        """Block until ``prepare`` is done; raises what it raised, or NotReady on time-out and after the end."""
        if self._closed:
            raise NotReady("the engine was closed")
        if not self._ready.wait(timeout_seconds):
            raise NotReady("the base is still loading")
        self._check()

    def close(self) -> None:
        """End after the step in flight."""
        with self._turn:
            self._closed = True
            self._turn.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _check(self) -> None:
        if self._closed:
            raise NotReady("the engine was closed")
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._prepare()
        except BaseException as error:
            log.exception("the base could not be loaded")
            self._failure = error
            self._rescue(error)
        finally:
            self._ready.set()
        while self._failure is None and self._wait():
            try:
                self._turn_once()
            except Exception as error:
                log.exception("a step failed")
                self._rescue(error)
        self._do_asked()
        self._rescue(self._failure or NotReady("the engine was closed"))

    def _do_asked(self) -> None:
        with self._turn:
            asked, self._asked = self._asked, []
        for task in asked:
            task()

    def _turn_once(self) -> None:
        self._do_asked()
        if self._has_work() and not self._step():
            with self._turn:
                if not self._asked and not self._closed:
                    self._turn.wait(_PATIENCE_SECONDS)

    def _wait(self) -> bool:
        """Sleep until there is something to do; False once closed."""
        with self._turn:
            while not (self._closed or self._asked or self._has_work()):
                self._turn.wait()
            return not self._closed
