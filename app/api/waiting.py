"""Waits for answers without holding a thread, and gives up when the caller has left."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request

T = TypeVar("T")


class CallerLeft(Exception):
    """Nobody waits for the answer any more."""


async def unless_left(request: Request, works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, side by side. The first failure, or the caller leaving (CallerLeft), cancels the rest.

    The body of ``request`` must have been read: what the connection says next is that it ended.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    left = asyncio.ensure_future(until_left(request))
    answers = asyncio.gather(*tasks)
    try:
        both: list[asyncio.Future[Any]] = [answers, left]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not answers.done():
            raise CallerLeft
        return answers.result()
    finally:
        for task in (*tasks, left):
            task.cancel()


async def until_left(request: Request) -> None:
    """Return when the caller has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Crossing:
    """Brings what other threads say to the event loop, in order; one wake-up for all that comes at once."""

    def __init__(self) -> None:
        """Belongs to the running loop."""
        self._loop = asyncio.get_running_loop()
        self._said: deque[tuple[Callable[[Any], object], Any]] = deque()
        self._is_called = False

    def say(self, hear: Callable[[T], object], what: T) -> None:
        """Have ``hear(what)`` called on the loop, soon; for any thread, and never raises."""
        self._said.append((hear, what))
        if not self._is_called:
            self._is_called = True
            with suppress(RuntimeError):  # the loop has ended, and with it everyone who could hear
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_called = False  # before looking: what is said from here on calls again
        while self._said:
            hear, what = self._said.popleft()
            hear(what)
