"""Waves of questions, the next asked before the last is answered, so that no row of a batch waits for a slow one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from queue import SimpleQueue
from threading import Event
from typing import Generic, TypeVar

from app.core.ports import TextGenerator
from app.core.records import Completion, GenerationRequest

_T = TypeVar("_T")


def answered(
    waves: Iterable[tuple[_T, Sequence[GenerationRequest]]],
    generator: TextGenerator,
    *,
    on_answer: Callable[[], None] = lambda: None,
    asks_ahead: Callable[[], bool] = lambda: True,
) -> Generator[tuple[_T, list[Completion]]]:
    """Each wave's answers in the order of its requests, beside what names it; waves in their order.

    The next wave is taken from ``waves`` and asked when half of one is answered, if ``asks_ahead`` says so then, or
    else when the caller wants it. Everything but the asking is done in the caller's thread. Raises what a wave or a
    request raises. What was asked and is not fetched, because of that or because the caller closes this, is given up
    with its next answer.
    """
    source, asked, is_over = iter(waves), deque[_Wave[_T]](), Event()
    with ThreadPoolExecutor(2, "wave") as threads:

        def ask() -> None:
            for name, requests in source:
                asked.append(_Wave(name, requests, generator, threads, is_over))
                return

        try:
            ask()
            while asked:
                for number, _ in enumerate(asked[0].answers()):
                    on_answer()
                    if number == asked[0].num_requests // 2 and asks_ahead():
                        ask()
                wave = asked.popleft()
                yield wave.name, wave.completions.result()
                if not asked:
                    ask()
        finally:
            is_over.set()


class _GivenUp(Exception):
    """Nobody waits any more."""


class _Wave(Generic[_T]):
    """Requests being answered on a thread."""

    def __init__(
        self,
        name: _T,
        requests: Sequence[GenerationRequest],
        generator: TextGenerator,
        threads: ThreadPoolExecutor,
        is_over: Event,
    ) -> None:
        self.name, self.num_requests = name, len(requests)
        self._told: SimpleQueue[bool] = SimpleQueue()  # of an answer: true; of the end: false

        def tell(position: int, completion: Completion) -> None:
            if is_over.is_set():
                raise _GivenUp
            self._told.put(True)

        def answer() -> list[Completion]:
            return generator.generate(requests, on_completion=tell) if requests else []

        self.completions: Future[list[Completion]] = threads.submit(copy_context().run, answer)
        self.completions.add_done_callback(lambda _: self._told.put(False))

    def answers(self) -> Iterator[None]:
        """Once for every answer, as they come."""
        while self._told.get():
            yield
