"""GET /jobs/{id}/events?stream=true over real HTTP: a job is followed while it runs, and after a lost connection."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Collection, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.following import Followers, Silence, Told
from app.api.routes.job_events import chunks
from app.api.sse import EventStream
from app.core.errors import NotReady
from app.core.event_types import EventType
from app.engine.fake import FakeEngine
from app.services.event_stream import EventFeed, Head
from app.services.lease import LeaseService
from app.services.run_job import JobRunner
from app.services.views import EventView
from tests.api.live import Service
from tests.services.house import EVALUATION, SEEDS, House

RECIPE = {"preset": "quick", "num_examples": 20, "controls": [], "evaluation_shots": [0], "min_yield": 0}

Line = tuple[int | None, str, dict[str, Any]]  # id, event, data


@contextmanager
def followed(
    service: Service, job_id: str, *, headers: dict[str, str] | None = None, **query: object
) -> Iterator[tuple[httpx.Response, Iterator[Line]]]:
    """The stream's head, and its events as they come."""
    path, params = f"/jobs/{job_id}/events", {"stream": "true", **query}
    with service.http.stream("GET", path, params=params, headers=headers) as response:  # type: ignore[arg-type]
        yield response, lines(response)


def lines(response: httpx.Response) -> Iterator[Line]:
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield int(fields["id"]) if "id" in fields else None, fields["event"], json.loads(fields["data"])
            fields = {}


def paged(service: Service, job_id: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = service.http.get(f"/jobs/{job_id}/events?limit=1000").json()["data"]
    return events


def order(service: Service) -> str:
    return str(service.specialize(seeds=SEEDS, evaluation=EVALUATION[:5], recipe=RECIPE).json()["id"])


def run(service: Service, job_id: str) -> None:
    """What a worker and the job's process do."""
    database, artifacts, clock = service.resources.database, service.resources.artifacts, service.resources.clock
    lease = LeaseService(database, artifacts, clock=clock, lease_seconds=30).take(job_id, owner="worker")
    assert lease is not None
    with closing(FakeEngine(slots=1, base_name="fake-base")) as engine:
        JobRunner(lease, database=database, artifacts=artifacts, engine=engine, clock=clock).run()


def tell(service: Service, job_id: str, type: EventType = "training_step", *, times: int = 1) -> None:
    with service.resources.database.session() as uow:
        for number in range(times):
            uow.events.add(job_id, type, f"{number}", now=service.resources.clock())
        uow.commit()


def test_a_job_is_followed_from_its_queue_to_its_end(service: Service) -> None:
    """The events are those of the pages, in their order, some told before the job ended; the last says how."""
    job_id = order(service)
    with followed(service, job_id) as (response, told), ThreadPoolExecutor(1) as worker:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        first = next(told)
        running = worker.submit(run, service, job_id)
        rest = list(told)
        running.result()
    assert (first[1], first[2]["type"]) == ("job_queued", "job_queued")
    *events, done = [first, *rest]
    assert [data for _, _, data in events] == paged(service, job_id)
    assert [(id, type) for id, type, _ in events] == [(data["id"], data["type"]) for _, _, data in events]
    assert events[-1][1] == "job_succeeded"
    assert done == (None, "done", {"id": job_id, "status": "succeeded"})


def test_a_follower_who_comes_back_gets_exactly_the_rest(service: Service) -> None:
    """The header says more than the query."""
    job_id = order(service)
    with followed(service, job_id) as (_, told):
        last_id, *_ = next(told)
    tell(service, job_id, times=250)
    service.http.post(f"/jobs/{job_id}/cancel")
    with followed(service, job_id, headers={"Last-Event-ID": str(last_id)}, after=0) as (_, told):
        *rest, done = list(told)
    assert [data for _, _, data in rest] == paged(service, job_id)[1:]
    assert done[2]["status"] == "cancelled"
    with followed(service, job_id, after=rest[-1][0]) as (_, told):
        assert [type for _, type, _ in told] == ["done"]


def test_a_paused_job_keeps_its_followers(service: Service) -> None:
    job_id = order(service)
    service.http.post(f"/jobs/{job_id}/pause")
    with followed(service, job_id) as (_, told):
        while next(told)[1] != "job_paused":
            pass
        service.http.post(f"/jobs/{job_id}/cancel")
        assert [type for _, type, _ in told] == ["cancel_requested", "job_cancelled", "done"]


def test_refused_before_it_begins(service: Service) -> None:
    assert service.http.get("/jobs/job-0/events?stream=true").status_code == 404
    job_id = order(service)
    for last_id in ("x", "-1", "1.5", str(2**63)):
        headers = {"Last-Event-ID": last_id}
        refusal = service.http.get(f"/jobs/{job_id}/events?stream=true", headers=headers)
        assert (refusal.status_code, refusal.json()["error"]["param"]) == (422, "last-event-id")


class CountingFeed(EventFeed):
    """Counts the transactions it costs."""

    num_looks = num_pages = 0

    def heads(self, job_ids: Collection[str]) -> dict[str, Head]:
        self.num_looks += 1
        return super().heads(job_ids)

    def page(self, job_id: str, *, after: int, limit: int) -> list[EventView]:
        self.num_pages += 1
        return super().page(job_id, after=after, limit=limit)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_many_idle_followers_cost_one_look_and_no_thread(house: House) -> None:
    """Hundreds who wait for two jobs: one query serves them all, and one reading a job brings them the news."""
    jobs = [house.order(), house.order()]
    feed = CountingFeed(house.database)

    last_ids = [house.events(job)[-1].id for job in jobs]

    async def watch() -> list[Told]:
        followers = Followers(feed, is_over=lambda: False, look_seconds=0.01)
        places = list(zip(jobs, last_ids, strict=True)) * 100
        many = [await followers.follow(job, after=last_id) for job, last_id in places]
        waiting = [asyncio.ensure_future(anext(aiter(follower))) for follower in many]
        num_threads = threading.active_count()
        while feed.num_looks < 3:
            await asyncio.sleep(0.005)
        assert (followers.num_open, feed.num_pages, threading.active_count()) == (200, 0, num_threads)
        await asyncio.to_thread(lambda: [house.services.mover.pause(job) for job in jobs])
        news = await asyncio.gather(*waiting)
        for follower in many:
            follower.close()
        assert followers.num_open == 0
        return news

    news = asyncio.run(watch())
    assert feed.num_pages == len(jobs)
    assert all([event.type for event in told] == ["pause_requested", "job_paused"] for told in news)  # type: ignore[union-attr]


def test_silence_is_broken_before_a_proxy_breaks_it(house: House) -> None:
    job_id = house.order()

    async def watch() -> list[Told]:
        followers = Followers(house.services.feed, is_over=lambda: False, keep_alive_seconds=0.001)
        told = aiter(await followers.follow(job_id, after=house.events(job_id)[-1].id))
        return [await anext(told), await anext(told)]

    assert asyncio.run(watch()) == [Silence(), Silence()]


def test_a_caller_who_leaves_frees_everything(house: House) -> None:
    """While nothing happens, which is when nobody would notice by writing to him."""
    job_id = house.order()

    async def leave() -> tuple[int, int]:
        followers = Followers(house.services.feed, is_over=lambda: False)
        follower = await followers.follow(job_id, after=0)
        has_left, has_heard = asyncio.Event(), asyncio.Event()

        async def receive() -> dict[str, str]:
            await has_left.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            if b"job_queued" in message.get("body", b""):
                has_heard.set()

        stream = EventStream(follower, chunks(follower), headers={})
        answering = asyncio.ensure_future(stream({"type": "http"}, receive, send))
        await has_heard.wait()
        num_open = followers.num_open
        has_left.set()
        await answering
        return num_open, followers.num_open

    assert asyncio.run(leave()) == (1, 0)


def test_a_follower_outlives_a_database_that_is_away_for_a_while(house: House) -> None:
    job_id = house.order()

    class Moody(EventFeed):
        num_faults = 2

        def page(self, job_id: str, *, after: int, limit: int) -> list[EventView]:
            self._fail()
            return super().page(job_id, after=after, limit=limit)

        def heads(self, job_ids: Collection[str]) -> dict[str, Head]:
            self._fail()
            return super().heads(job_ids)

        def _fail(self) -> None:
            if self.num_faults:
                self.num_faults -= 1
                raise NotReady("the database does not answer")

    async def watch() -> Told:
        followers = Followers(Moody(house.database), is_over=lambda: False, look_seconds=0.001)
        return await anext(aiter(await followers.follow(job_id, after=0)))

    assert [event.type for event in asyncio.run(watch())] == ["job_queued", "seeds_examined"]  # type: ignore[union-attr]
