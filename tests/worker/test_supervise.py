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
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.bootstrap import Stores, build_stores, now
from app.core.states import JobStatus, StageStatus
from app.services.lease import LeaseService
from app.settings import Settings
from tests.services.house import BASE, LEASE_SECONDS, House
from worker.supervise import Supervisor

ENDLESS: dict[str, Any] = {"num_examples": 1_000_000, "max_prompts": 1_000_000}


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """Stores in a folder, and an environment that leads every child process there."""
    for name in [name for name in os.environ if name.startswith("SELFSPEC_")]:
        monkeypatch.delenv(name)
    environment = {"DATA_DIR": tmp_path, "ENGINE": "fake", "BASE": BASE, "HEARTBEAT_SECONDS": 0.01}
    for name, value in environment.items():
        monkeypatch.setenv(f"SELFSPEC_{name}", str(value))
    return House(tmp_path)


@pytest.fixture
def stores(house: House) -> Iterator[Stores]:
    with closing(build_stores(Settings())) as opened:
        yield opened


class Watch:
    """A clock that does something once, as soon as the job's process is at work."""

    def __init__(self, house: House, job_id: str, act: Callable[[], object]) -> None:
        self._house, self._job_id, self._act, self.has_acted = house, job_id, act, False

    def __call__(self) -> datetime:
        if not self.has_acted and self._house.events(self._job_id, "stage_started"):
            self.has_acted = True
            self._act()
        return now()


def supervise(
    stores: Stores, job_id: str, *, clock: Callable[[], datetime] = now, stopping: threading.Event | None = None
) -> None:
    """What a worker does with a message."""
    used = replace(stores, clock=clock)
    Supervisor(used, owner="worker", stopping=stopping or threading.Event()).run(job_id)


def supervise_until(house: House, stores: Stores, job_id: str, act: Callable[[], object], **options: object) -> None:
    watch = Watch(house, job_id, act)
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
    supervise(stores, job_id)  # a message that comes twice
    assert house.job(job_id).attempt == 1


def test_a_cancelled_job_is_killed(house: House, stores: Stores) -> None:
    job_id = house.order(**ENDLESS)
    supervise_until(house, stores, job_id, lambda: house.services.jobs.cancel(job_id))
    assert house.job(job_id).status is JobStatus.CANCELLED
    assert {stage.status for stage in house.stages(job_id)} == {StageStatus.CANCELLED, StageStatus.PENDING}
    assert house.drafts(job_id) == []


def test_a_cancel_of_a_job_whose_worker_died_needs_no_process(house: House, stores: Stores) -> None:
    job_id = house.order(**ENDLESS)
    house.take(job_id, owner="dead")
    house.services.jobs.cancel(job_id)
    supervise(stores, job_id)
    assert house.job(job_id).status is JobStatus.CANCELLED
    assert not log_of(stores, job_id).exists()


def test_a_process_that_is_killed_fails_its_job_by_the_signals_name(house: House, stores: Stores) -> None:
    """What the kernel does when memory runs out."""
    job_id = house.order(**ENDLESS)
    supervise_until(house, stores, job_id, lambda: os.kill(children(job_id)[0].pid, signal.SIGKILL))
    job = house.job(job_id)
    assert (job.status, job.error_code, job.error_fault) == (JobStatus.FAILED, "process_died", "service")
    assert job.error_message is not None
    assert job.error_message.startswith("the process of the job ended with SIGKILL")
    assert house.stages(job_id)[0].status is StageStatus.FAILED
    assert [event.message for event in house.events(job_id, "job_failed")] == [job.error_message]
    assert house.drafts(job_id) == []


def test_a_process_that_cannot_start_fails_its_job_with_its_last_words(
    house: House, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = house.order(num_examples=5)
    monkeypatch.setenv("SELFSPEC_DATABASE_URL", "sqlite:////dev/null/selfspec.db")
    supervise(stores, job_id)
    job = house.job(job_id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "process_died")
    assert job.error_message is not None
    assert "exit code 1" in job.error_message
    assert "the folder of the database cannot be made" in job.error_message


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
    supervise_until(house, stores, job_id, lambda: later.take(job_id, owner="rival"))
    job = house.job(job_id)
    assert (job.status, job.owner, job.attempt) == (JobStatus.RUNNING, "rival", 2)
    assert house.drafts(job_id) != []  # the rival's now


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
