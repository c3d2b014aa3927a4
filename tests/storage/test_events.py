"""A job's story: its order over transactions that end in any order, and how far it goes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event as Signal

import pytest

from app.core.states import JobStatus
from app.storage.database import Database
from app.storage.events import Head
from tests.storage.samples import NOW, store_job


def tell(database: Database, job_id: str, message: str, *, before_commit: Callable[[], object] = lambda: None) -> int:
    with database.session() as uow:
        id = uow.events.add(job_id, "training_step", message, now=NOW).id
        before_commit()
        uow.commit()
    return id


def test_no_event_appears_before_one_that_was_seen(database: Database) -> None:
    """A bug: on PostgreSQL whoever told first and committed last put an event in behind the readers' backs."""
    job_id = store_job(database)
    has_told, is_overtaken = Signal(), Signal()
    seen: list[int] = []

    def look() -> None:
        has_told.set()
        is_overtaken.wait(0.3)  # never set if the order is kept
        with database.session(read_only=True) as uow:
            seen.extend(event.id for event in uow.events.list(job_id))

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(tell, database, job_id, "slow", before_commit=look)
        assert has_told.wait(20)
        second = threads.submit(tell, database, job_id, "quick")
        second.add_done_callback(lambda _: is_overtaken.set())
        ids = [first.result(), second.result()]
    assert seen == []
    assert ids == sorted(ids)


def test_a_reader_misses_nothing_that_many_tell(database: Database) -> None:
    """It asks for what came after the last one it saw, and never again for what was before."""
    job_id = store_job(database)
    seen = [0]

    def look() -> None:
        with database.session(read_only=True) as uow:
            seen.extend(event.id for event in uow.events.list(job_id, after=seen[-1]))

    with ThreadPoolExecutor(3) as threads:
        tellers = [threads.submit(tell, database, job_id, f"{number}") for number in range(30)]
        while not all(teller.done() for teller in tellers):
            look()
    look()
    assert seen[1:] == sorted(teller.result() for teller in tellers)


@pytest.mark.parametrize("database", [pytest.param("postgresql", marks=pytest.mark.service)], indirect=True)
def test_another_jobs_teller_need_not_wait(database: Database) -> None:
    """SQLite has one writer at a time."""
    jobs = [store_job(database, name) for name in ("job-1", "job-2")]
    tell(database, jobs[0], "slow", before_commit=lambda: tell(database, jobs[1], "quick"))


def test_heads_say_how_far_stories_go(database: Database) -> None:
    """Of more jobs than one query takes, and without those that are gone."""
    names = [f"job-{number:03}" for number in range(3)]
    for name in names:
        store_job(database, name)
    last = [tell(database, names[0], "one"), tell(database, names[1], "two"), tell(database, names[0], "three")]
    with database.session() as uow:
        uow.jobs.request_cancel(names[1], now=NOW)
        uow.commit()
    with database.session(read_only=True) as uow:
        heads = uow.events.heads([*names, *(f"gone-{number}" for number in range(1200))])
    assert heads == {
        names[0]: Head(names[0], JobStatus.QUEUED, last[2]),
        names[1]: Head(names[1], JobStatus.CANCELLED, last[1]),
        names[2]: Head(names[2], JobStatus.QUEUED, 0),
    }
