"""A real worker process, as ``selfspec worker`` starts it: what Celery brings, and what it leaves when it ends."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.core.states import JobStatus
from app.serve import worker_command
from app.settings import Settings
from tests.services.house import House

pytestmark = pytest.mark.service

PATIENCE_SECONDS = 60.0
SHORT: dict[str, Any] = {"num_examples": 5, "promotion": "always"}
ENDLESS: dict[str, Any] = {"num_examples": 1_000_000, "max_prompts": 1_000_000}


@contextmanager
def working(
    monkeypatch: pytest.MonkeyPatch, *, folder: Path | None = None, **settings: object
) -> Iterator[psutil.Popen]:
    """``folder``: where it is started."""
    for name, value in settings.items():
        monkeypatch.setenv(f"SELFSPEC_{name.upper()}", str(value))
    worker = psutil.Popen(worker_command(Settings()), stderr=subprocess.DEVNULL, cwd=folder)
    try:
        yield worker
    finally:
        family = [worker, *worker.children(recursive=True)] if worker.is_running() else []
        for process in family:
            process.kill()
        worker.wait()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_message_wakes_the_worker_and_a_signal_ends_it_in_order(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("here")
    with working(monkeypatch, folder=folder, look_seconds=3600, lease_seconds=3600) as worker:
        until(lambda: workers(house) == 1)
        short = house.order(**SHORT)
        house.now += timedelta(seconds=1)
        endless = house.order(**ENDLESS)
        until(lambda: house.job(short).status is JobStatus.SUCCEEDED)
        until(lambda: house.events(endless, "stage_started"))
        worker.terminate()
        assert worker.wait(PATIENCE_SECONDS) == 0
    job = house.job(endless)
    assert (job.status, job.owner, job.attempt, job.deaths) == (JobStatus.QUEUED, None, 1, 0)
    assert house.events(endless)[-1].type == "job_interrupted"
    assert workers(house) == 0
    assert list(folder.iterdir()) == []


def test_the_beat_has_lost_messages_sent_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message went where no worker listens; one that looks once an hour gets the job by the sweep."""
    with working(monkeypatch, look_seconds=3600, lease_seconds=0.5, queue="another"):
        until(lambda: workers(house) == 1)
        job_id = house.order(**SHORT)
        until(lambda: house.job(job_id).status is JobStatus.SUCCEEDED)


def workers(house: House) -> int:
    """Processes that said they live."""
    with house.database.session(read_only=True) as uow:
        return len(uow.workers.list())
