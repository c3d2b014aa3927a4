"""Followers of jobs: each is told a job's events as they come, for as long as the job may have any.

One task a process looks for news of all followed jobs in one query; a follower that waits holds no thread and no
connection to the database. Followers that have seen the same share the reading of what comes next.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

from anyio import CapacityLimiter, to_thread

from app.core.states import JobStatus
from app.services.event_stream import EventFeed, Head
from app.services.views import EventView

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.3  # between two looks for news
KEEP_ALIVE_SECONDS = 15.0  # a proxy closes what is silent for longer; most wait a minute
_PAGE = 100  # events read at once
_THREADS = 4  # at once reading for all followers; apart from the pool of the other routes, which must stay free


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more is to come of this job."""

    status: JobStatus


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing came for a while."""


Told = list[EventView] | Ended | Silence
_Place = tuple[str, int]  # a job, and the last event of it that was seen


class Follower:
    """Follows one job; iterate to be told. ``close`` (harmless at any time) ends that and lets go of everything."""

    def __init__(self, followers: Followers, head: Head, *, after: int) -> None:
        self.job_id, self._head, self._after = head.job_id, head, after
        self._followers, self._has_news, self._is_open = followers, asyncio.Event(), True

    def close(self) -> None:
        self._is_open = False
        self._followers.leave(self)
        self._has_news.set()

    def hear(self, head: Head | None) -> None:
        """How far the story goes now; None: nothing more can be told."""
        if head is None:
            self.close()
        elif head != self._head:
            self._head = head
            self._has_news.set()

    async def __aiter__(self) -> AsyncIterator[Told]:
        self._followers.join(self)
        try:
            while self._is_open:
                self._has_news.clear()
                if self._after < self._head.last_id:
                    if events := await self._followers.read((self.job_id, self._after)):
                        self._after = events[-1].id
                        yield events
                elif self._head.status.is_final:
                    yield Ended(self._head.status)
                    return
                elif not await self._is_told_of_news():
                    yield Silence()
        finally:
            self.close()

    async def _is_told_of_news(self) -> bool:
        try:
            async with asyncio.timeout(self._followers.keep_alive_seconds):
                return await self._has_news.wait()
        except TimeoutError:
            return False


class Followers:
    """All followers of one process; belongs to one event loop."""

    def __init__(
        self,
        feed: EventFeed,
        *,
        is_over: Callable[[], bool],
        look_seconds: float = LOOK_SECONDS,
        keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
    ) -> None:
        """``is_over``: the process is about to end, and its followers are to look for another one."""
        self._feed, self._is_over, self._look_seconds = feed, is_over, look_seconds
        self.keep_alive_seconds = keep_alive_seconds
        self._limiter = CapacityLimiter(_THREADS)
        self._by_job: defaultdict[str, set[Follower]] = defaultdict(set)
        self._reading: dict[_Place, asyncio.Task[list[EventView]]] = {}
        self._looking: asyncio.Task[None] | None = None

    @property
    def num_open(self) -> int:
        return sum(map(len, self._by_job.values()))

    async def follow(self, job_id: str, *, after: int) -> Follower:
        """A follower from behind the event ``after``; raises NotFound."""
        head = await to_thread.run_sync(self._feed.head, job_id, limiter=self._limiter)
        return Follower(self, head, after=after)

    def join(self, follower: Follower) -> None:
        """Let it hear of news, until it leaves; with the first one the looking begins."""
        self._by_job[follower.job_id].add(follower)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_forever())

    def leave(self, follower: Follower) -> None:
        """Forget it; with the last one the looking ends."""
        of_job = self._by_job.get(follower.job_id, set())
        of_job.discard(follower)
        if not of_job:
            self._by_job.pop(follower.job_id, None)
        if not self._by_job and self._looking is not None:
            self._looking.cancel()
            self._looking = None

    async def read(self, place: _Place) -> list[EventView]:
        """The next page: one reading for all who ask while it goes on. Empty if it cannot be had now."""
        task = self._reading.get(place)
        if task is None:
            task = self._reading[place] = asyncio.create_task(self._read(*place))
            task.add_done_callback(lambda _: self._reading.pop(place, None))
        return await asyncio.shield(task)

    async def _read(self, job_id: str, after: int) -> list[EventView]:
        try:
            page = partial(self._feed.page, job_id, after=after, limit=_PAGE)
            return await to_thread.run_sync(page, limiter=self._limiter)
        except Exception:
            log.exception("the events of job %s cannot be read", job_id)
            await asyncio.sleep(self._look_seconds)
            return []

    async def _look_forever(self) -> None:
        """A look that fails is logged, not fatal: there will be another one."""
        while not self._is_over():
            await asyncio.sleep(self._look_seconds)
            try:
                await self._look()
            except Exception:
                log.exception("there is no news for those who follow jobs")
        for followers in list(self._by_job.values()):
            for follower in list(followers):
                follower.hear(None)

    async def _look(self) -> None:
        jobs = set(self._by_job)
        heads = await to_thread.run_sync(self._feed.heads, jobs, limiter=self._limiter)
        for job_id in jobs:
            for follower in list(self._by_job.get(job_id, ())):
                follower.hear(heads.get(job_id))
