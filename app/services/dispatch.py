"""Sends jobs to the workers, and again when a message may have been lost: the sweep.

Sending once too often is harmless, because a worker must take the job's lease before it works.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime

from app.core.errors import NotReady
from app.storage.database import Database
from app.storage.job_queue import JobQueue

log = logging.getLogger(__name__)


class Dispatcher:
    """Remembers what it sent and when, so that a sweep does not fill the queue with copies."""

    def __init__(
        self,
        database: Database,
        queue: JobQueue,
        *,
        clock: Callable[[], datetime],
        lease_seconds: float,
        resend_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """A job that is still queued ``resend_seconds`` after it was sent is sent again; clocks in seconds."""
        self._database, self._queue, self._clock, self._monotonic = database, queue, clock, monotonic
        self._lease_seconds, self._resend_seconds = lease_seconds, resend_seconds
        self._sent_at: dict[str, float] = {}

    def send(self, job_id: str) -> bool:
        """Tell the workers; False if the broker does not answer (a later sweep tries again)."""
        try:
            self._queue.send(job_id)
        except NotReady as error:
            log.warning("job %s stays queued: %s", job_id, error)
            return False
        self._sent_at[job_id] = self._monotonic()
        return True

    def sweep(self) -> list[str]:
        """Send again what waits too long and what its worker has left; returns the ids that were sent."""
        with self._database.session(read_only=True) as uow:
            queued = list(uow.jobs.queued_ids())
            left = list(uow.jobs.expired_ids(now=self._clock(), lease_seconds=self._lease_seconds))
        waiting = {*queued, *left}
        self._sent_at = {job_id: at for job_id, at in self._sent_at.items() if job_id in waiting}
        return [job_id for job_id in (*queued, *left) if self._is_due(job_id) and self.send(job_id)]

    def _is_due(self, job_id: str) -> bool:
        sent_at = self._sent_at.get(job_id)
        return sent_at is None or self._monotonic() - sent_at >= self._resend_seconds
