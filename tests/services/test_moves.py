"""Jobs that are paused, held for review, cancelled and tried again: nothing they would have made is another."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, text

from app.core.errors import Conflict, NotFound, SelfspecError
from app.core.states import JobStatus, StageStatus, WaitsFor
from app.services.lease import Held, LeaseLost
from tests.services.house import EVALUATION, SEEDS, SMALL_JOB, Countdown, House, Killed, MortalEngine
from tests.storage.conftest import throw_away_postgres
from tests.storage.samples import at_once

SMALL: dict[str, Any] = {**SMALL_JOB, "num_examples": 20, "evaluation": EVALUATION[:4], "checkpoint_steps": 1}
STAGES = ("instructions", "responses", "dataset", "adapter", "metrics", "gate")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture
def house(shared: House) -> House:
    """The rows of other tests' jobs are there, their files are not."""
    shared.lose_artifacts()
    return shared


@dataclass
class Moments:
    """Calls ``act`` at the clock's call number ``number`` (from 1; 0: never), and notes every stage at which it may.

    It may where no transaction is open: between two writes of the job.
    """

    house: House
    job_id: str
    number: int = 0
    act: Callable[[], object] = lambda: None
    stages: list[str | None] = field(default_factory=list)

    def __call__(self) -> datetime:
        if self._is_free():
            self.stages.append(self.house.job(self.job_id).stage)
            if len(self.stages) == self.number:
                self.act()
        return self.house.now

    def _is_free(self) -> bool:
        path = self.house.database.url.removeprefix("sqlite:///")
        probe = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            probe.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        finally:
            probe.close()
        return True


@dataclass(frozen=True)
class Reference:
    """A job that nothing disturbed: what it made, and the stage at every moment between two writes."""

    digests: dict[str, str | None]
    stages: list[str | None]

    def second_moment(self, stage: str) -> int:
        """Number (from 1) of the second moment of a stage: it has begun."""
        return self.stages.index(stage) + 2


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    house = House(tmp_path_factory.mktemp("reference"))
    job_id = house.order(**SMALL)
    moments = Moments(house, job_id)
    house.run(job_id, clock=moments)
    return Reference(house.digests(job_id), moments.stages)


def run_until_held(house: House, job_id: str, number: int, act: Callable[[], object]) -> None:
    """One attempt, with ``act`` at its moment ``number``; it must end because the job is held."""
    with pytest.raises(Held):
        house.run(job_id, clock=Moments(house, job_id, number, act))


def assert_ends_like(house: House, job_id: str, reference: Reference) -> None:
    house.run(job_id)
    assert house.job(job_id).status is JobStatus.SUCCEEDED
    assert house.digests(job_id) == reference.digests
    assert house.drafts(job_id) == []


# ---- pause and resume ----


def test_a_job_paused_before_it_began_is_not_taken(house: House, reference: Reference) -> None:
    job_id = house.order(**SMALL)
    for _ in range(2):
        paused = house.services.mover.pause(job_id)
        assert (paused.status, paused.waits_for) == (JobStatus.QUEUED, WaitsFor.RESUME)
    assert house.leases.take(job_id, owner="worker") is None
    assert house.services.dispatcher.sweep() == []
    resumed = house.services.mover.resume(job_id)
    assert (resumed.status, resumed.waits_for) == (JobStatus.QUEUED, None)
    assert_ends_like(house, job_id, reference)
    told = [event.type for event in house.events(job_id)]
    assert [told.count(type) for type in ("pause_requested", "job_paused", "job_resumed")] == [1, 1, 1]


@pytest.mark.parametrize("every", [31, pytest.param(1, marks=pytest.mark.chaos)])
def test_a_pause_at_any_moment_changes_nothing(house: House, reference: Reference, every: int) -> None:
    """Asked for between any two writes of any stage, the last moments aside: there the job is as good as done."""
    assert set(reference.stages) == {None, *STAGES}
    last = reference.stages.index("gate") - 4  # a slower run tells its progress more often: some moments more
    for number in range(1, last, every):
        house.lose_artifacts()
        job_id = house.order(**SMALL)
        asked = reference.stages[number - 1]
        run_until_held(house, job_id, number, partial(house.services.mover.pause, job_id))
        job = house.job(job_id)
        assert (job.status, job.waits_for, job.pause_requested, job.owner) == ("queued", "resume", False, None), asked
        assert StageStatus.RUNNING not in {run.status for run in house.stages(job_id)}
        house.services.mover.resume(job_id)
        assert_ends_like(house, job_id, reference)


def test_a_job_paused_again_and_again_ends_all_the_same(house: House, reference: Reference) -> None:
    job_id = house.order(**SMALL)
    for _ in range(3):
        run_until_held(house, job_id, 7, lambda: house.services.mover.pause(job_id))
        house.services.mover.resume(job_id)
    assert_ends_like(house, job_id, reference)
    assert len(house.events(job_id, "job_paused")) == 3


def test_a_pause_that_has_not_happened_can_be_taken_back(house: House, reference: Reference) -> None:
    job_id = house.order(**SMALL)
    lease = house.take(job_id)
    assert house.services.mover.pause(job_id).pause_requested
    taken_back = house.services.mover.resume(job_id)
    assert (taken_back.status, taken_back.pause_requested) == (JobStatus.RUNNING, False)
    house.run(job_id, lease=lease)
    assert house.digests(job_id) == reference.digests


def test_a_kill_while_paused_work_goes_on_changes_nothing(house: House, reference: Reference) -> None:
    """Paused, resumed, killed, taken over."""
    job_id = house.order(**SMALL)
    run_until_held(house, job_id, reference.second_moment("responses"), lambda: house.services.mover.pause(job_id))
    house.services.mover.resume(job_id)
    with pytest.raises(Killed):
        house.run(job_id, engine=MortalEngine(Countdown(2)))
    assert_ends_like(house, job_id, reference)


# ---- retry ----


class FailingEngine(MortalEngine):
    """Fails in training, as a machine does."""

    def train(self, *_: Any, **__: Any) -> Any:
        raise SelfspecError("the device was lost")


def test_a_retry_goes_on_at_the_first_stage_without_an_artifact(house: House, reference: Reference) -> None:
    job_id = house.order(**SMALL)
    house.run(job_id, engine=FailingEngine(Countdown()))
    assert house.job(job_id).status is JobStatus.FAILED
    queued = house.services.mover.retry(job_id)
    assert (queued.status, queued.error, queued.finished_at) == (JobStatus.QUEUED, None, None)
    assert {stage.status for stage in queued.progress} == {StageStatus.SUCCEEDED, StageStatus.PENDING}
    assert_ends_like(house, job_id, reference)
    started = [event.stage for event in house.events(job_id, "stage_started")]
    assert started == [*STAGES[:4], "adapter", "metrics", "gate"]


def test_a_cancelled_job_can_be_tried_again(house: House, reference: Reference) -> None:
    """Its unfinished files are gone, what was whole is not made again."""
    job_id = house.order(**SMALL)
    run_until_held(house, job_id, reference.second_moment("responses"), lambda: house.services.mover.pause(job_id))
    assert house.drafts(job_id)
    ended = house.services.mover.cancel(job_id)
    assert (ended.status, ended.waits_for, house.drafts(job_id)) == (JobStatus.CANCELLED, None, [])
    assert house.services.mover.retry(job_id).cancel_requested is False
    assert_ends_like(house, job_id, reference)
    assert [event.stage for event in house.events(job_id, "stage_started")].count("instructions") == 1


def test_what_a_job_is_decides_what_may_be_done_with_it(house: House) -> None:
    mover = house.services.mover
    queued, running, failed, done = (house.order(**SMALL) for _ in range(4))
    house.take(running)
    house.run(failed, engine=FailingEngine(Countdown()))
    house.run(done)
    house.take(running)
    for move, job_id, told in (
        (mover.resume, queued, "is queued and was not paused: it goes on by itself"),
        (mover.resume, running, "is running and was not paused: it goes on by itself"),
        (mover.resume, done, "is succeeded and was not paused: it has ended"),
        (mover.retry, queued, "is queued: only a failed or cancelled one"),
        (mover.retry, running, "is running: only a failed or cancelled one"),
        (mover.retry, done, "is succeeded: only a failed or cancelled one"),
        (mover.pause, failed, "is failed: there is nothing to pause"),
        (mover.pause, done, "is succeeded: there is nothing to pause"),
    ):
        before = house.job(job_id), len(house.events(job_id))
        with pytest.raises(Conflict, match=told):
            move(job_id)
        assert (house.job(job_id).status, len(house.events(job_id))) == (before[0].status, before[1])
    for move in (mover.cancel, mover.pause, mover.resume, mover.retry):
        with pytest.raises(NotFound, match="no job 'job-0'"):
            move("job-0")


# ---- races ----


def test_a_cancel_after_a_pause_that_was_asked_for_ends_the_job(house: House, reference: Reference) -> None:
    """A bug: the job went back to the queue to wait for a person, where nobody ended it."""
    job_id = house.order(**SMALL)

    def ask() -> None:
        house.services.mover.pause(job_id)
        house.services.mover.cancel(job_id)

    with pytest.raises((Held, LeaseLost)):
        house.run(job_id, clock=Moments(house, job_id, reference.second_moment("responses"), ask))
    if house.job(job_id).status is JobStatus.QUEUED:  # the worker's next look ends it
        assert house.job(job_id).waits_for is None
        house.leases.end_cancelled(house.take(job_id))
    assert house.job(job_id).status is JobStatus.CANCELLED


@pytest.mark.service
def test_a_cancel_that_meets_the_pause_itself_ends_the_job(tmp_path: Path) -> None:
    """A bug: on PostgreSQL the cancel saw a running job, waited for its row, and then found none that was running."""
    with throw_away_postgres() as url, ThreadPoolExecutor(1) as thread:
        house = House(tmp_path, database_url=url)
        job_id = house.order(**SMALL)
        lease = house.take(job_id)
        with house.database.session() as uow:
            uow.jobs.move(job_id, JobStatus.QUEUED, now=house.now, attempt=lease.attempt, waits_for=WaitsFor.RESUME)
            cancelled = thread.submit(house.services.mover.cancel, job_id)
            wait_for_a_lock(url)
            uow.commit()
        assert cancelled.result(30).status is JobStatus.CANCELLED
        house.database.dispose()


def wait_for_a_lock(url: str) -> None:
    """Until somebody waits for a row that another transaction holds."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    engine = create_engine(url, poolclass=NullPool)
    deadline = time.monotonic() + 30
    with engine.connect() as connection:
        while not connection.execute(waiting).scalar_one():
            assert time.monotonic() < deadline, "nobody waits"
            connection.rollback()  # what is seen is of the transaction's first look


def test_of_many_moves_at_once_each_is_whole(house: House) -> None:
    """Whoever comes first, the job ends in a state that the events tell."""
    job_id = house.order(**SMALL)
    house.services.mover.pause(job_id)
    moves = (house.services.mover.resume, house.services.mover.cancel, house.services.mover.pause)

    def move(number: int) -> str:
        try:
            return moves[number % 3](job_id).status.value
        except Conflict as error:
            return error.code

    told = at_once(move, times=9)
    assert house.job(job_id).status is JobStatus.CANCELLED
    assert {*told} <= {"queued", "cancelled", "conflict"}
    assert len(house.events(job_id, "job_cancelled")) == 1
    assert len(house.events(job_id, "job_resumed")) <= 3


def test_a_resumed_job_is_sent_to_the_workers(house: House) -> None:
    """The sweep would too, but not at once."""
    job_id = house.order(seeds=SEEDS[:4], **SMALL)
    house.services.mover.pause(job_id)
    house.services.dispatcher.sweep()
    house.services.mover.resume(job_id)
    assert job_id not in house.services.dispatcher.sweep()  # it was sent a moment ago
