"""The job queue with the embedded broker: a real worker process gets what was sent; nothing is lost or doubled."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from queue import Empty
from threading import Event, Timer
from typing import Any

import pytest

from app.core.errors import NotReady, SetupError
from app.storage.job_queue import FOLDER_BROKER, QUEUE, JobQueue, make_celery
from tests.storage.samples import at_once

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60  # then the worker is ended and the test fails
WORKER = """
import os
import sys
from pathlib import Path
from app.storage.job_queue import FOLDER_BROKER, TASK, make_celery

app = make_celery(FOLDER_BROKER, Path(sys.argv[1]))

@app.task(name=TASK)
def run_job(job_id):
    os.write(1, f"{job_id}\\n".encode())  # print goes to Celery's log

app.Worker(pool="threads", concurrency=1, quiet=True, without_gossip=True, without_mingle=True).start()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "bro ker"


@pytest.fixture
def queue(folder: Path) -> Iterator[JobQueue]:
    made = JobQueue(make_celery(FOLDER_BROKER, folder))
    yield made
    made.close()


@pytest.mark.service
def test_a_worker_process_gets_the_jobs_in_order(queue: JobQueue, folder: Path) -> None:
    queue.check()
    queue.send("job-before")
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        end = Timer(PATIENCE_SECONDS, worker.kill)
        end.start()
        try:
            assert worker.stdout.readline().strip() == "job-before"
            queue.send("job-1")
            queue.send("job-2")
            assert [worker.stdout.readline().strip() for _ in range(2)] == ["job-1", "job-2"]
        finally:
            worker.terminate()
            code = worker.wait()
            end.cancel()
    assert code == 0
    assert list(folder.iterdir()) == []


def test_messages_taken_while_they_are_sent_are_whole_and_taken_once(folder: Path) -> None:
    """A reader once saw a message's file before it was written, and failed."""
    num_messages, num_senders = 300, 2
    ended = [Event() for _ in range(num_senders)]

    def send(number: int) -> list[str]:
        try:
            with make_celery(FOLDER_BROKER, folder).connection() as connection:
                channel = connection.channel()
                for turn in range(num_messages):
                    channel._put(QUEUE, {"body": f"{number}-{turn}"})
        finally:
            ended[number].set()
        return []

    def take(_: int) -> list[str]:
        taken: list[str] = []
        with make_celery(FOLDER_BROKER, folder).connection() as connection:
            channel = connection.channel()
            while not all(event.is_set() for event in ended):
                taken += _next(channel)
        return taken

    lists = at_once(lambda number: (send if number < num_senders else take)(number), times=num_senders + 2)
    bodies = list(chain.from_iterable(lists))
    with make_celery(FOLDER_BROKER, folder).connection() as connection:
        channel = connection.channel()
        while rest := _next(channel):
            bodies += rest
    assert sorted(bodies) == sorted(f"{number}-{turn}" for number in range(num_senders) for turn in range(num_messages))


def _next(channel: Any) -> list[str]:
    try:
        return [channel._get(QUEUE)["body"]]
    except Empty:
        return []


def test_two_brokers_in_one_process_do_not_mix(queue: JobQueue, folder: Path, tmp_path: Path) -> None:
    other = JobQueue(make_celery(FOLDER_BROKER, tmp_path / "other"))
    queue.send("job-1")
    other.send("job-2")
    other.close()
    assert len(list(folder.iterdir())) == len(list((tmp_path / "other").iterdir())) == 1


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://guest@127.0.0.1:1//"])
def test_a_broker_that_is_away_is_one_clear_line(url: str, tmp_path: Path) -> None:
    if url.startswith("redis"):
        pytest.importorskip("redis")
    away = JobQueue(make_celery(url, tmp_path))
    for ask in (away.check, lambda: away.send("job-1")):
        with pytest.raises(NotReady, match="the broker does not answer") as refusal:
            ask()
        assert "\n" not in refusal.value.message
    away.close()


def test_two_queues_at_one_broker_do_not_mix(folder: Path) -> None:
    ours, theirs = (make_celery(FOLDER_BROKER, folder, queue=name) for name in ("ours", "theirs"))
    JobQueue(theirs).send("job-1")
    with ours.connection() as connection, connection.SimpleQueue("ours") as waiting:
        assert waiting.qsize() == 0
    with theirs.connection() as connection, connection.SimpleQueue("theirs") as waiting:
        assert waiting.qsize() == 1


@pytest.mark.parametrize(
    ("url", "remedy"),
    [("me:secret@host", "is no URL such as"), ("kafkaesque://me:secret@host", "use redis:// or amqp")],
)
def test_a_broker_url_that_is_none_is_told_without_its_password(url: str, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=remedy) as refusal:
        make_celery(url, tmp_path)
    assert "SELFSPEC_BROKER_URL" in refusal.value.message
    assert "secret" not in refusal.value.message


def test_a_driver_that_is_not_installed_is_named_by_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(SetupError, match=r"pip install 'selfspec\[redis\]'"):
        make_celery("redis://127.0.0.1:6379/0", tmp_path)
