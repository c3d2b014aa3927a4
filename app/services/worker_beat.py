"""A worker says that it lives: one row in the database, renewed while it runs and gone when it ends in order."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta

from app.core.errors import NotReady, SelfspecError
from app.models import Worker
from app.storage.database import Database

log = logging.getLogger(__name__)

FORGET_AFTER = timedelta(days=1)  # rows of workers that were killed


class WorkerBeat:
    """One worker process. ``beat`` may be called as often as it likes: it writes every ``every_seconds``."""

    def __init__(
        self,
        database: Database,
        *,
        slots: int,
        every_seconds: float,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``slots``: jobs that it runs at once."""
        self._database, self._slots, self._every_seconds = database, slots, every_seconds
        self._clock, self._monotonic = clock, monotonic
        self._id, self._started_at = f"worker-{uuid.uuid4().hex[:16]}", clock()
        self._beaten_at: float | None = None

    def beat(self) -> None:
        """Say so, if it is time. A database that does not answer is told to the log, and asked again next time."""
        now = self._monotonic()
        if self._beaten_at is not None and now - self._beaten_at < self._every_seconds:
            return
        self._beaten_at = now
        try:
            self._write()
        except SelfspecError as error:
            log.warning("this worker could not say that it lives: %s", error)

    def end(self) -> None:
        """Take the row away; a database that does not answer keeps it, with the time at which it was last seen."""
        try:
            with self._database.session() as uow:
                uow.workers.forget(self._id)
                uow.commit()
        except SelfspecError as error:
            log.warning("this worker could not say that it ends: %s", error)

    def _write(self) -> None:
        seen_at = self._clock()
        with self._database.session() as uow:
            uow.workers.see(
                Worker(
                    id=self._id,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    slots=self._slots,
                    started_at=self._started_at,
                    seen_at=seen_at,
                )
            )
            uow.workers.forget_silent(since=seen_at - FORGET_AFTER)
            uow.commit()


def check_alive(
    database: Database, *, within_seconds: float, clock: Callable[[], datetime], host: str | None = None
) -> None:
    """Raise NotReady unless a worker of ``host`` (None: this machine) said within that time that it lives."""
    with database.session(read_only=True) as uow:
        workers = [worker for worker in uow.workers.list() if worker.host == (host or socket.gethostname())]
    if not workers:
        raise NotReady("no worker of this machine lives")
    if not any(is_alive(worker, now=clock(), within_seconds=within_seconds) for worker in workers):
        raise NotReady(f"the worker of this machine was last seen at {workers[0].seen_at:%Y-%m-%d %H:%M:%S} UTC")


def is_alive(worker: Worker, *, now: datetime, within_seconds: float) -> bool:
    """Whether it said so within that time."""
    return worker.seen_at >= now - timedelta(seconds=within_seconds)
