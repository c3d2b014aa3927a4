"""The slots of a worker: they find jobs with and without messages, oldest first, and only where there is room."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.bootstrap import Stores, now
from app.core.states import JobStatus
from app.services.admission import Admission
from app.services.room import Room
from app.storage.database import Database
from tests.services.house import LEASE_SECONDS, House
from worker.crew import Crew, Patience
from worker.parts import make_leases

pytestmark = pytest.mark.service

GB = 1_000_000_000
PATIENCE_SECONDS = 60.0
ENDLESS: dict[str, Any] = {"num_examples": 1_000_000, "max_prompts": 1_000_000}
SHORT: dict[str, Any] = {"num_examples": 5, "promotion": "always"}


def until(condition: Callable[[], object]) -> None:
    """Looks again and again; a test whose condition never comes fails."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def at_work(
    stores: Stores,
    *,
    slots: int = 1,
    gpus: tuple[str, ...] = (),
    room: Callable[[str | None], Room] = lambda gpu: Room("memory", 16 * GB, 16 * GB),
    needed: int = 0,
    look_seconds: float = 3600.0,
    clock: Callable[[], datetime] = now,
) -> Iterator[Crew]:
    used = replace(stores, clock=clock)
    admission = Admission(
        used.database,
        data_dir=used.settings.data_dir,
        clock=clock,
        device="cpu",
        job_memory_bytes=needed,
        base_bytes=lambda: 0,
        min_free_bytes=0,
    )
    crew = Crew(
        make_leases(used),
        admission,
        num_slots=slots,
        gpus=gpus,
        room=room,
        logs_dir=used.settings.logs_dir,
        look_seconds=look_seconds,
        heartbeat_seconds=used.settings.heartbeat_seconds,
    )
    crew.start()
    try:
        yield crew
    finally:
        crew.stop()
        crew.join()


def order_in_turn(house: House, count: int, **recipe: Any) -> list[str]:
    """Jobs, the oldest first."""
    jobs = []
    for number in range(count):
        house.now += timedelta(seconds=1)
        jobs.append(house.order(**recipe, seed=number))
    return jobs


def cancelled(house: House) -> str:
    job_id = house.order()
    house.services.mover.cancel(job_id)
    return job_id


def leave_behind(house: House, job_id: str) -> None:
    """Make a cancelled job one whose worker died before it ended it: whoever takes it ends it without a process."""
    with house.database.session() as uow:
        uow.jobs.retry(job_id)
        uow.jobs.claim(job_id, owner="dead", now=house.now, lease_seconds=LEASE_SECONDS)
        uow.jobs.request_cancel(job_id, now=house.now)
        uow.commit()


def status(house: House, job_id: str) -> JobStatus:
    return house.job(job_id).status


def process_of(job_id: str) -> psutil.Process:
    [child] = [child for child in psutil.Process().children() if job_id in child.cmdline()]
    return child


def is_begun(house: House, job_id: str) -> bool:
    return bool(house.events(job_id, "stage_started"))


def test_jobs_are_run_oldest_first_without_a_message(house: House, stores: Stores) -> None:
    """Those that wait when the worker starts, and those it finds when it comes free."""
    jobs = order_in_turn(house, 2, **SHORT)
    with at_work(stores):
        until(lambda: all(status(house, job_id).is_final for job_id in jobs))
    assert [status(house, job_id) for job_id in jobs] == [JobStatus.SUCCEEDED] * 2
    ended, began = house.events(jobs[0], "job_succeeded")[0], house.events(jobs[1], "job_started")[0]
    assert ended.id < began.id


def test_an_idle_worker_is_woken_by_a_message(house: House, stores: Stores) -> None:
    jobs = [cancelled(house) for _ in range(2)]
    with at_work(stores) as crew:
        for job_id in jobs:
            leave_behind(house, job_id)
            crew.wake()
            until(lambda job_id=job_id: status(house, job_id) is JobStatus.CANCELLED)  # type: ignore[misc]


def test_an_idle_worker_looks_by_itself(house: House, stores: Stores) -> None:
    """The message was lost."""
    job_id = cancelled(house)
    with at_work(stores, look_seconds=0.02):
        leave_behind(house, job_id)
        until(lambda: status(house, job_id) is JobStatus.CANCELLED)


def test_slots_work_at_once_on_a_gpu_each_and_give_their_jobs_back(house: House, stores: Stores) -> None:
    jobs = order_in_turn(house, 3, **ENDLESS)
    with at_work(stores, slots=2, gpus=("4", "7")):
        until(lambda: all(is_begun(house, job_id) for job_id in jobs[:2]))
        gpus = {process_of(job_id).environ()["CUDA_VISIBLE_DEVICES"] for job_id in jobs[:2]}
        owners = {house.job(job_id).owner for job_id in jobs}
    assert gpus == {"4", "7"}
    assert len(owners) == 3  # two slots and nobody
    assert [status(house, job_id) for job_id in jobs] == [JobStatus.QUEUED] * 3
    assert [house.job(job_id).attempt for job_id in jobs] == [1, 1, 0]
    assert psutil.Process().children() == []


def test_two_slots_do_not_count_on_the_same_memory(house: House, stores: Stores) -> None:
    """The first has taken only a part of what it will need when the second is asked for."""
    jobs = order_in_turn(house, 2, **ENDLESS)
    with at_work(stores, slots=2, needed=10 * GB):
        until(lambda: house.events(jobs[1], "waiting_for_memory"))
        assert status(house, jobs[0]) is JobStatus.RUNNING
        house.services.mover.cancel(jobs[0])
        until(lambda: status(house, jobs[1]) is JobStatus.RUNNING)
    assert status(house, jobs[0]) is JobStatus.CANCELLED


def test_a_job_is_taken_as_soon_as_there_is_memory(house: House, stores: Stores) -> None:
    free = [GB]
    job_id = house.order(**SHORT)
    with at_work(stores, room=lambda gpu: Room("memory", free[0], 16 * GB), needed=2 * GB, look_seconds=0.02):
        until(lambda: house.job(job_id).waits_for)
        free[0] = 2 * GB
        until(lambda: status(house, job_id) is JobStatus.SUCCEEDED)
    assert len(house.events(job_id, "waiting_for_memory")) == 1


def test_a_worker_that_starts_before_its_database_waits_for_it(house: House, stores: Stores, tmp_path: Path) -> None:
    folder = tmp_path / "later"
    with (
        Database(f"sqlite:///{folder / 'selfspec.db'}") as database,
        at_work(replace(stores, database=database), look_seconds=0.02),
    ):
        until(lambda: (folder / "selfspec.db").exists())  # it looked, and found no tables
        later = House(folder)
        job_id = later.order(**SHORT)
        until(lambda: later.events(job_id, "job_started"))


def test_a_job_that_was_interrupted_again_and_again_is_left_alone_for_longer_and_longer() -> None:
    seconds = [0.0]
    patience = Patience(lambda: seconds[0])
    waits = []
    for _ in range(7):
        patience.note("job-1", was_interrupted=True)
        begun = seconds[0]
        while not patience.is_over("job-1"):
            seconds[0] += 1.0
        waits.append(seconds[0] - begun)
    assert waits == [0.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]
    patience.note("job-1", was_interrupted=True)
    assert patience.is_over("job-2")
    patience.note("job-1", was_interrupted=False)
    assert patience.is_over("job-1")
