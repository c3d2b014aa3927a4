"""How every route asks: whole answers (``answer``) or answers as they are written (``stream``).

Knows the event loop, threads and the caller's connection; nothing about the shape of a body. A caller who leaves, a
failure or a cancelled task gives up everything that was asked in the engine.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from anyio import CapacityLimiter, to_thread
from fastapi import Request

from app.api.waiting import Crossing, unless_left
from app.core.errors import NotReady, SelfspecError
from app.core.records import Completion, Piece
from app.services.container import Services
from app.services.generate import (
    MAX_TRIES,
    Answer,
    Asked,
    Drawing,
    Expert,
    Generator,
    OnPiece,
    Prompt,
    Question,
    Target,
    was_evicted,
)

log = logging.getLogger(__name__)

_THREADS = 16  # at once resolving and attaching; apart from the pool of the other routes, which must stay free

Event = tuple[int, Piece | Answer | SelfspecError]  # (which of the n answers, what happened to it)


@dataclass(frozen=True, slots=True)
class Answers:
    """The ``n`` answers of one expert to one prompt, in order."""

    expert: Expert
    prompt: Prompt
    answers: tuple[Answer, ...]


async def answer(
    request: Request, services: Services, prompt: Question | str, drawing: Drawing, target: Target
) -> Answers:
    """Whole answers. Raises what ``Generator.begin`` and the engine raise, and CallerLeft."""
    [answers] = await answer_all(request, services, [prompt], drawing, [target])
    return answers


async def answer_all(
    request: Request,
    services: Services,
    prompts: Sequence[Question | str],
    drawing: Drawing,
    targets: Sequence[Target],
) -> list[Answers]:
    """Every prompt asked of every target, in one batch; in order of the targets, then of the prompts."""
    room = _room(request)
    return await unless_left(
        request, [_answer(room, services.generator, prompt, drawing, to) for to in targets for prompt in prompts]
    )


async def stream(
    request: Request, services: Services, prompt: Question | str, drawing: Drawing, target: Target
) -> Stream:
    """Answers as they are written. Raises, as ``answer`` does, whatever happens before the first event."""
    [started] = await unless_left(request, [_start(_room(request), services.generator, prompt, drawing, target)])
    return started


class Stream:
    """The events of one question. Iterate to get all events that came since, as a list, until every answer ended.

    Each answer's events are its pieces in order and, last, the Answer or the error that ended it; the answers' events
    are mixed. ``close`` (harmless at any time) gives up what is still being written.
    """

    def __init__(self, generator: Generator, crossing: Crossing) -> None:
        self._generator, self._crossing = generator, crossing
        self._events: deque[tuple[int, Piece | Future[Completion]]] = deque()
        self._has_come = asyncio.Event()
        self._asked: Asked | None = None

    @property
    def expert(self) -> Expert:
        assert self._asked is not None
        return self._asked.expert

    @property
    def prompt(self) -> Prompt:
        assert self._asked is not None
        return self._asked.prompt

    def close(self) -> None:
        if self._asked is not None:
            self._asked.cancel()

    async def __aiter__(self) -> AsyncIterator[list[Event]]:
        assert self._asked is not None
        open_answers = len(self._asked.futures)
        try:
            while open_answers:
                events = await self._next()
                open_answers -= sum(not isinstance(event, Piece) for _, event in events)
                yield events
        finally:
            self.close()

    def on_piece(self, index: int, piece: Piece) -> None:
        """For the engine's thread."""
        self._crossing.say(self._hear, (index, piece))

    async def begin(self, asked: Asked) -> None:
        """Follow ``asked``; returns when there is a first event, raises if that is an error."""
        self._asked = asked
        for index, future in enumerate(asked.futures):
            future.add_done_callback(partial(self._on_end, index))
        await self._has_come.wait()
        for _, event in self._events:
            if isinstance(event, Future) and not event.cancelled() and (error := event.exception()) is not None:
                raise error

    async def _next(self) -> list[Event]:
        await self._has_come.wait()
        self._has_come.clear()
        events = [(index, self._read(event)) for index, event in self._events]
        self._events.clear()
        return events

    def _read(self, event: Piece | Future[Completion]) -> Piece | Answer | SelfspecError:
        if isinstance(event, Piece):
            return event
        try:
            return self._generator.finish(self.expert, event.result())
        except SelfspecError as error:
            return error
        except BaseException as error:
            if not event.cancelled():
                log.error("an answer failed while it was written", exc_info=error)
            return SelfspecError("something went wrong inside the service; its log says what")

    def _on_end(self, index: int, future: Future[Completion]) -> None:
        self._crossing.say(self._hear, (index, future))

    def _hear(self, event: tuple[int, Piece | Future[Completion]]) -> None:
        self._events.append(event)
        self._has_come.set()


@dataclass(frozen=True, slots=True)
class _Room:
    """What the questions of one application share, made on its event loop."""

    limiter: CapacityLimiter
    crossing: Crossing


def _room(request: Request) -> _Room:
    state = request.app.state
    if not hasattr(state, "answering"):
        state.answering = _Room(CapacityLimiter(_THREADS), Crossing())
    room: _Room = state.answering
    return room


async def _answer(
    room: _Room, generator: Generator, prompt: Question | str, drawing: Drawing, target: Target
) -> Answers:
    """Asks again if the adapter lost its place to another between being attached and being used."""
    for _ in range(MAX_TRIES):
        asked = await _begin(room, generator, prompt, drawing, target)
        try:
            completions = await asyncio.gather(*map(asyncio.wrap_future, asked.futures))
            answers = tuple(generator.finish(asked.expert, completion) for completion in completions)
            return Answers(asked.expert, asked.prompt, answers)
        except SelfspecError as error:
            if not was_evicted(error):
                raise
        finally:
            asked.cancel()
    raise _too_few_slots()


async def _start(room: _Room, generator: Generator, prompt: Question | str, drawing: Drawing, target: Target) -> Stream:
    for _ in range(MAX_TRIES):
        started = Stream(generator, room.crossing)
        asked = await _begin(room, generator, prompt, drawing, target, started.on_piece)
        try:
            await started.begin(asked)
            return started
        except BaseException as error:
            started.close()
            if not was_evicted(error):
                raise
    raise _too_few_slots()


async def _begin(
    room: _Room,
    generator: Generator,
    prompt: Question | str,
    drawing: Drawing,
    target: Target,
    on_piece: OnPiece | None = None,
) -> Asked:
    """In a thread if it may block. What a cancelled caller had asked for meanwhile is given up."""
    if (asked := generator.begin_at_once(prompt, drawing, target=target, on_piece=on_piece)) is not None:
        return asked
    begin = partial(generator.begin, prompt, drawing, target=target, on_piece=on_piece)
    begun = asyncio.ensure_future(to_thread.run_sync(begin, limiter=room.limiter))
    try:
        return await asyncio.shield(begun)
    except asyncio.CancelledError:
        begun.add_done_callback(_give_up)
        raise


def _give_up(begun: asyncio.Future[Asked]) -> None:
    if not begun.cancelled() and begun.exception() is None:
        begun.result().cancel()


def _too_few_slots() -> NotReady:
    return NotReady("more experts are asked at once than there is memory for (SELFSPEC_ADAPTER_BYTES); try again")
