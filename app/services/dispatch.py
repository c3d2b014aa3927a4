"""Tells the workers that a job waits, and again when a message may have been lost: the sweep.

Telling once too often is harmless, because a worker must take the job's lease before it works.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime

from app.core.errors import NotReady
from app.services.lease import LeaseService
from app.storage.database import Database
from app.storage.job_queue import JobQueue

log = logging.getLogger(__name__)

RESEND_LEASES = 10  # a queued job is sent again after this many leases' time without a worker taking it


class Dispatcher:
    """Remembers what it sent and when, so that a sweep does not fill the queue with copies."""

    def __init__(
        self,
        database: Database,
        queue: JobQueue,
        *,
        leases: LeaseService,
        clock: Callable[[], datetime],
        lease_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``monotonic``: the clock, in seconds, of how long ago a job was sent."""
        self._database, self._queue, self._leases = database, queue, leases
        self._clock, self._monotonic = clock, monotonic
        self._lease_seconds, self._resend_seconds = lease_seconds, RESEND_LEASES * lease_seconds
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
        """Send again what waits too long and what its worker has left; returns the ids that were sent.

        A job that its worker has left and that is to be cancelled ends here: no worker is needed for that.
        """
        if ended := self._leases.end_left():
            log.info("cancelled, their workers are gone: %s", ", ".join(ended))
        with self._database.session(read_only=True) as uow:
            queued = list(uow.jobs.queued_ids())
            left = list(uow.jobs.expired_ids(now=self._clock(), lease_seconds=self._lease_seconds))
        waiting = {*queued, *left}
        self._sent_at = {job_id: at for job_id, at in self._sent_at.items() if job_id in waiting}
        return [job_id for job_id in (*queued, *left) if self._is_due(job_id) and self.send(job_id)]

    def _is_due(self, job_id: str) -> bool:
        sent_at = self._sent_at.get(job_id)
        return sent_at is None or self._monotonic() - sent_at >= self._resend_seconds
