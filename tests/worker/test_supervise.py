"""A worker and the real child process of a job, with the fake engine in it: however it ends, the job says so.

No test waits and hopes: the supervisor reads its clock at every heartbeat, and that is where a test steps in.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.bootstrap import Stores, build_stores, now
from app.core.errors import DatabaseAway
from app.core.states import JobStatus, StageStatus
from app.services.lease import LeaseService
from app.settings import Settings
from app.storage.artifacts import MANIFEST
from app.storage.disk import LOCK
from tests.services.house import LEASE_SECONDS, House
from worker.parts import make_leases
from worker.supervise import Supervisor

pytestmark = pytest.mark.service

STARTING = "starting"  # before its first stage
WRITING = "writing"  # it has a file on the disk
LONG_TRAINING: dict[str, Any] = {"num_examples": 300, "batch_size": 1, "epochs": 100, "checkpoint_steps": 1}
NOT_EVEN_ROOTS = Path("/sys/kernel")  # nobody can make a folder there
ENDLESS: dict[str, Any] = {"num_examples": 1_000_000, "max_prompts": 1_000_000}


class Watch:
    """A clock that does something once, as soon as the job's process is at work (on ``stage``)."""

    def __init__(self, house: House, job_id: str, act: Callable[[], object], *, stage: str = "instructions") -> None:
        self._house, self._job_id, self._act, self._stage, self.has_acted = house, job_id, act, stage, False

    def __call__(self) -> datetime:
        if not self.has_acted and self._is_there():
            self.has_acted = True
            self._act()
        return now()

    def _is_there(self) -> bool:
        if self._stage == STARTING:
            return bool(children(self._job_id))
        if self._stage == WRITING:
            return bool(self._house.drafts(self._job_id))
        return self._stage in [event.stage for event in self._house.events(self._job_id, "stage_started")]


def supervise(
    stores: Stores,
    job_id: str,
    *,
    clock: Callable[[], datetime] = now,
    stopping: threading.Event | None = None,
    disk_trouble: Callable[[], str | None] = lambda: None,
) -> bool:
    """What a slot does with a job; whether the job was to be had, and not interrupted."""
    leases = make_leases(replace(stores, clock=clock))
    supervisor = Supervisor(
        leases,
        logs_dir=stores.settings.logs_dir,
        heartbeat_seconds=stores.settings.heartbeat_seconds,
        stopping=stopping or threading.Event(),
        disk_trouble=disk_trouble,
    )
    if (lease := leases.take(job_id, owner="worker")) is None:
        return False
    supervisor.run(lease)
    return not supervisor.was_interrupted


def supervise_until(
    house: House,
    stores: Stores,
    job_id: str,
    act: Callable[[], object],
    *,
    stage: str = "instructions",
    **options: object,
) -> None:
    watch = Watch(house, job_id, act, stage=stage)
    supervise(stores, job_id, clock=watch, **options)  # type: ignore[arg-type]
    assert watch.has_acted
    assert children(job_id) == []


def children(job_id: str, parent: psutil.Process | None = None) -> list[psutil.Process]:
    """Processes that work on a job."""
    return [child for child in (parent or psutil.Process()).children() if job_id in child.cmdline()]


def log_of(stores: Stores, job_id: str) -> Path:
    return stores.settings.logs_dir / f"{job_id}.log"


def test_a_job_runs_to_its_end_in_a_process_of_its_own(house: House, stores: Stores) -> None:
    job_id = house.order(num_examples=5, promotion="always")
    supervise(stores, job_id)
    job = house.job(job_id)
    assert (job.status, job.attempt, job.owner) == (JobStatus.SUCCEEDED, 1, "worker")
    with house.database.session(read_only=True) as uow:
        assert uow.domains.champion("finance").id == job.adapter_id
    assert log_of(stores, job_id).exists()
    assert not supervise(stores, job_id)
    assert house.job(job_id).attempt == 1


@pytest.mark.parametrize(("stage", "recipe"), [(STARTING, ENDLESS), ("adapter", LONG_TRAINING)])
def test_a_cancelled_job_is_killed_wherever_it_is(
    house: House, stores: Stores, stage: str, recipe: dict[str, Any]
) -> None:
    job_id = house.order(**recipe)
    before = files(house)
    supervise_until(house, stores, job_id, lambda: house.services.mover.cancel(job_id), stage=stage)
    assert house.job(job_id).status is JobStatus.CANCELLED
    assert {run.status for run in house.stages(job_id)} <= {
        StageStatus.SUCCEEDED,
        StageStatus.CANCELLED,
        StageStatus.PENDING,
    }
    assert house.events(job_id)[-1].type == "job_cancelled"
    whole = {path.parent for path in files(house) if path.name == MANIFEST}
    assert {path for path in files(house) - before if path.parent not in whole} <= {house.artifacts.root / LOCK}


def files(house: House) -> set[Path]:
    return {path for path in house.artifacts.root.rglob("*") if path.is_file()}


def test_a_cancel_of_a_job_whose_worker_died_needs_no_process(house: House, stores: Stores) -> None:
    job_id = house.order(**ENDLESS)
    house.take(job_id, owner="dead")
    house.services.mover.cancel(job_id)
    supervise(stores, job_id)
    assert house.job(job_id).status is JobStatus.CANCELLED
    assert not log_of(stores, job_id).exists()


def kill_child(job_id: str) -> None:
    """What the kernel does when memory runs out."""
    os.kill(children(job_id)[0].pid, signal.SIGKILL)


def test_a_job_whose_process_was_killed_goes_on_and_makes_the_same(
    house: House, stores: Stores, tmp_path: Path
) -> None:
    undisturbed = House(tmp_path / "undisturbed")
    reference = undisturbed.order(num_examples=40, promotion="always")
    undisturbed.run(reference)
    job_id = house.order(num_examples=40, promotion="always")
    supervise_until(house, stores, job_id, lambda: kill_child(job_id))
    job = house.job(job_id)
    assert (job.status, job.owner, job.deaths, job.error_code) == (JobStatus.QUEUED, None, 1, None)
    [told] = house.events(job_id, "process_died")
    assert told.message.startswith("the process of the job ended with SIGKILL")
    assert "it goes on from what it has made" in told.message
    assert supervise(stores, job_id)
    assert (house.job(job_id).status, house.job(job_id).attempt) == (JobStatus.SUCCEEDED, 2)
    assert house.digests(job_id) == undisturbed.digests(reference)
    assert house.drafts(job_id) == []


def test_a_job_whose_processes_die_again_and_again_fails_by_the_signals_name(
    house: House, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFSPEC_MAX_DEATHS", "1")
    job_id = house.order(**ENDLESS)
    with closing(build_stores(Settings())) as strict:
        supervise_until(house, strict, job_id, lambda: kill_child(job_id))
    job = house.job(job_id)
    assert (job.status, job.error_code, job.error_fault) == (JobStatus.FAILED, "process_died", "service")
    assert job.error_message is not None
    assert job.error_message.startswith("the process of the job ended with SIGKILL")
    assert house.stages(job_id)[0].status is StageStatus.FAILED
    assert [event.message for event in house.events(job_id, "job_failed")] == [job.error_message]
    assert house.drafts(job_id) == []


def test_a_process_that_cannot_start_says_why_in_its_last_words(
    house: House, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = house.order(num_examples=5)
    monkeypatch.setenv("SELFSPEC_DATABASE_URL", "sqlite:////dev/null/selfspec.db")
    supervise(stores, job_id)
    [told] = house.events(job_id, "process_died")
    assert "exit code 1" in told.message
    assert "the folder of the database cannot be made" in told.message


# ---- what a job cannot help ----


def test_a_job_whose_database_went_away_waits_and_dies_no_death(
    house: House, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Away for the child, back when its end is to be told."""
    pytest.importorskip("psycopg")
    job_id = house.order(num_examples=5, promotion="always")
    with monkeypatch.context() as patch:
        patch.setenv("SELFSPEC_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/none")
        assert not supervise(stores, job_id)
    job = house.job(job_id)
    assert (job.status, job.waits_for, job.deaths) == (JobStatus.QUEUED, None, 0)
    [told] = house.events(job_id, "job_interrupted")
    assert told.message.startswith("interrupted: the database does not answer")


@pytest.mark.skipif(not NOT_EVEN_ROOTS.is_dir(), reason="no folder here refuses root")
def test_a_job_that_cannot_write_waits_for_the_disk(house: House, stores: Stores) -> None:
    job_id = house.order(num_examples=5, promotion="always")
    drafts = house.artifacts.root / "tmp"
    drafts.rename(drafts.with_name("aside"))
    drafts.symlink_to(NOT_EVEN_ROOTS, target_is_directory=True)
    assert not supervise(stores, job_id)
    job = house.job(job_id)
    assert (job.status, job.waits_for, job.deaths) == (JobStatus.QUEUED, "disk", 0)
    [told] = house.events(job_id, "job_interrupted")
    assert told.message.startswith("interrupted: writing is not permitted")


def test_a_process_that_dies_of_a_full_disk_dies_no_death(house: House, stores: Stores) -> None:
    """A library that maps a file it cannot grow gets a signal instead of an error."""
    job_id = house.order(**ENDLESS)
    full = "the disk is full: 0 MB free"
    options: dict[str, Any] = {"disk_trouble": lambda: full}
    supervise_until(house, stores, job_id, lambda: kill_child(job_id), **options)
    assert (house.job(job_id).status, house.job(job_id).waits_for) == (JobStatus.QUEUED, "disk")
    [told] = house.events(job_id, "job_interrupted")
    assert full in told.message


def test_a_worker_outlives_its_database(house: House, stores: Stores) -> None:
    """It tells of a death that it could not tell when it happened: each telling reads the clock first."""
    job_id, calls = house.order(**ENDLESS), iter([DatabaseAway("the database does not answer")])
    watch = Watch(house, job_id, lambda: kill_child(job_id))

    def clock() -> datetime:
        if watch.has_acted and (away := next(calls, None)) is not None:
            raise away
        return watch()

    supervise(stores, job_id, clock=clock)
    assert list(calls) == []
    assert (house.job(job_id).status, house.job(job_id).deaths) == (JobStatus.QUEUED, 1)


# ---- what people ask for ----


def test_a_job_that_someone_else_holds_is_left_alone(house: House, stores: Stores) -> None:
    job_id = house.order(num_examples=5)
    held = LeaseService(house.database, house.artifacts, clock=now, lease_seconds=LEASE_SECONDS)
    assert held.take(job_id, owner="other") is not None
    before = house.events(job_id)
    supervise(stores, job_id)
    assert (house.job(job_id).owner, house.job(job_id).status) == ("other", JobStatus.RUNNING)
    assert [event.id for event in house.events(job_id)] == [event.id for event in before]
    assert not log_of(stores, job_id).exists()


def test_a_worker_whose_job_was_taken_over_kills_its_process(house: House, stores: Stores) -> None:
    job_id = house.order(**ENDLESS)
    later = LeaseService(
        house.database, house.artifacts, clock=lambda: now() + timedelta(hours=1), lease_seconds=LEASE_SECONDS
    )
    supervise_until(house, stores, job_id, lambda: later.take(job_id, owner="rival"), stage=WRITING)
    job = house.job(job_id)
    assert (job.status, job.owner, job.attempt) == (JobStatus.RUNNING, "rival", 2)
    assert house.drafts(job_id) != []  # the rival's now


@pytest.mark.parametrize(
    ("asked", "left"),
    [("cancel", (JobStatus.CANCELLED, None)), ("pause", (JobStatus.QUEUED, "resume"))],
)
def test_what_was_asked_for_while_the_worker_stopped_is_not_forgotten(
    house: House, stores: Stores, asked: str, left: tuple[JobStatus, str | None]
) -> None:
    """The job went back to the queue, and from there to work again, as if nobody had asked."""
    job_id = house.order(**ENDLESS)
    lease = house.take(job_id)
    mover = house.services.mover
    mover.cancel(job_id) if asked == "cancel" else mover.pause(job_id)
    house.leases.give_back(lease)
    assert (house.job(job_id).status, house.job(job_id).waits_for) == left


def test_a_worker_that_stops_gives_its_job_back(house: House, stores: Stores) -> None:
    job_id, stopping = house.order(**ENDLESS), threading.Event()
    supervise_until(house, stores, job_id, stopping.set, stopping=stopping)
    assert (house.job(job_id).status, house.job(job_id).owner) == (JobStatus.QUEUED, None)
    assert house.events(job_id)[-1].type == "job_interrupted"


WORKER = textwrap.dedent("""
    import threading
    from contextlib import closing
    from dataclasses import replace
    from pathlib import Path

    from app.bootstrap import build_stores
    from app.settings import Settings
    from tests.services.house import House
    from tests.worker.test_supervise import Watch, supervise

    with closing(build_stores(Settings())) as stores:
        told = lambda: print("at work", flush=True)
        supervise(stores, {job_id!r}, clock=Watch(House(Path({folder!r})), {job_id!r}, told))
""")


def test_a_worker_that_is_killed_leaves_no_process_behind(house: House, tmp_path: Path) -> None:
    """It held the lease; what it started would work on without one, and hold the GPU, until it next wrote a row."""
    job_id = house.order(**ENDLESS)
    code = WORKER.format(job_id=job_id, folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"at work\n"
        [child] = children(job_id, psutil.Process(worker.pid))
        worker.kill()
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running()
    assert house.job(job_id).status is JobStatus.RUNNING
    with house.database.session(read_only=True) as uow:
        left = uow.jobs.expired_ids(now=now() + timedelta(seconds=LEASE_SECONDS + 1), lease_seconds=LEASE_SECONDS)
    assert left == [job_id]
