"""The sweep: sends again what was lost, without filling the queue with copies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.core.states import JobStatus
from app.models import Job, SeedSet, SetRole
from app.services.dispatch import RESEND_LEASES, Dispatcher
from app.services.lease import LeaseService
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database
from app.storage.job_queue import JobQueue, make_celery
from tests.blank import lay_tables

LEASE = 30.0
RESEND = RESEND_LEASES * LEASE


class Bench:
    """A database with jobs, a broker that counts, and two clocks to turn."""

    def __init__(self, folder: Path) -> None:
        self.now = datetime(2026, 1, 5, tzinfo=UTC)
        lay_tables(folder / "selfspec.db")
        self.database = Database(f"sqlite:///{folder / 'selfspec.db'}")
        self.artifacts = ArtifactStore(folder / "artifacts")
        self.broker_dir = folder / "broker"
        self.queue = JobQueue(make_celery("filesystem://", self.broker_dir))
        self.dispatcher = self.new_dispatcher()

    def new_dispatcher(self) -> Dispatcher:
        return Dispatcher(
            self.database,
            self.queue,
            leases=LeaseService(self.database, self.artifacts, clock=lambda: self.now, lease_seconds=LEASE),
            clock=lambda: self.now,
            monotonic=lambda: self.now.timestamp(),
            lease_seconds=LEASE,
        )

    def add_job(self, job_id: str) -> str:
        with self.database.session() as uow:
            uow.domains.get_or_add("finance", now=self.now)
            uow.seed_sets.add(
                SeedSet(
                    id=f"set-{job_id}",
                    domain="finance",
                    role=SetRole.SEEDS,
                    digest="d",
                    num_rows=1,
                    artifact_digest="a",
                    created_at=self.now,
                )
            )
            job = Job(
                id=job_id,
                domain="finance",
                recipe={},
                base="base",
                seed_set_id=f"set-{job_id}",
                request_digest="r",
                created_at=self.now,
            )
            uow.jobs.add(job)
            uow.commit()
        return job_id

    def claim(self, job_id: str) -> None:
        with self.database.session() as uow:
            uow.jobs.claim(job_id, owner="w", now=self.now, lease_seconds=LEASE)
            uow.commit()

    def end(self, job_id: str) -> None:
        with self.database.session() as uow:
            uow.jobs.move(job_id, JobStatus.SUCCEEDED, now=self.now)
            uow.commit()

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_new_process_sends_everything_that_waits(bench: Bench) -> None:
    jobs = [bench.add_job(f"job-{number}") for number in range(3)]
    assert bench.dispatcher.sweep() == jobs
    assert bench.dispatcher.sweep() == []
    assert bench.new_dispatcher().sweep() == jobs


def test_a_job_that_waits_long_is_sent_again(bench: Bench) -> None:
    job_id = bench.add_job("job-1")
    assert bench.dispatcher.send(job_id)
    bench.later(RESEND - 1)
    assert bench.dispatcher.sweep() == []
    bench.later(1)
    assert bench.dispatcher.sweep() == [job_id]


def test_only_what_its_worker_left_is_sent_again(bench: Bench) -> None:
    left, worked_on, ended = (bench.add_job(f"job-{number}") for number in range(3))
    for job_id in (left, ended):
        bench.claim(job_id)
    bench.end(ended)
    bench.later(LEASE + 1)
    bench.claim(worked_on)
    assert bench.dispatcher.sweep() == [left]


def test_a_broker_that_is_away_stops_nothing(bench: Bench) -> None:
    """Not sent, not forgotten: the next sweep tries again at once."""
    job_id = bench.add_job("job-1")
    bench.broker_dir.write_text("in the way")
    assert not bench.dispatcher.send(job_id)
    assert bench.dispatcher.sweep() == []
    bench.broker_dir.unlink()
    assert bench.dispatcher.sweep() == [job_id]


def test_a_job_that_is_to_be_cancelled_needs_no_worker_for_that(bench: Bench) -> None:
    """Its worker died before it looked, and no other came."""
    left, asked = bench.add_job("job-1"), bench.add_job("job-2")
    for job_id in (left, asked):
        bench.claim(job_id)
    with bench.database.session() as uow:
        assert uow.jobs.request_cancel(asked, now=bench.now, lease_seconds=LEASE).status is JobStatus.RUNNING
        uow.commit()
    half = bench.artifacts.draft(asked, "responses")
    assert bench.dispatcher.sweep() == []
    bench.later(LEASE + 1)
    assert bench.dispatcher.sweep() == [left]
    with bench.database.session(read_only=True) as uow:
        assert uow.jobs.get(asked).status is JobStatus.CANCELLED
        assert [event.type for event in uow.events.list(asked)] == ["job_cancelled"]
    assert not half.exists()
