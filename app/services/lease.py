"""The lease of a job as the worker sees it: take it, keep it, and end the job when its process is gone."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from app.core.errors import Conflict, Fault
from app.core.states import JobStatus, StageStatus
from app.models import EventLevel
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database
from app.storage.jobs import Failure


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on a job: valid while the row names this owner and attempt."""

    job_id: str
    owner: str
    attempt: int


class LeaseLost(Conflict):
    """Another process has this job now, or it ended: stop, and write nothing."""

    code = "lease_lost"


class LeaseService:
    """Short transactions on one job's row."""

    def __init__(
        self, database: Database, artifacts: ArtifactStore, *, clock: Callable[[], datetime], lease_seconds: float
    ) -> None:
        self._database, self._artifacts, self._clock, self._lease_seconds = database, artifacts, clock, lease_seconds

    def take(self, job_id: str, *, owner: str) -> Lease | None:
        """The lease, or None if the job is someone else's or ended."""
        with self._database.session() as uow:
            now = self._clock()
            attempt = uow.jobs.claim(job_id, owner=owner, now=now, lease_seconds=self._lease_seconds)
            if attempt is None:
                return None
            uow.events.add(job_id, "job_started", f"attempt {attempt}", now=now, data={"owner": owner})
            uow.commit()
        return Lease(job_id, owner, attempt)

    def renew(self, lease: Lease) -> bool:
        """False: the lease is lost."""
        with self._database.session() as uow:
            held = uow.jobs.heartbeat(lease.job_id, owner=lease.owner, attempt=lease.attempt, now=self._clock())
            uow.commit()
        return held

    def is_cancel_requested(self, lease: Lease) -> bool:
        with self._database.session(read_only=True) as uow:
            return uow.jobs.get(lease.job_id).cancel_requested

    def end_cancelled(self, lease: Lease) -> None:
        """After the process was killed: the job is cancelled and its unfinished files are gone.

        Does nothing if the job had ended before the kill.
        """
        with suppress(Conflict), self._database.session() as uow:
            now = self._clock()
            uow.jobs.move(lease.job_id, JobStatus.CANCELLED, now=now, attempt=lease.attempt)
            uow.stage_runs.fail(lease.job_id, now=now, status=StageStatus.CANCELLED)
            uow.events.add(lease.job_id, "job_cancelled", "cancelled on request", now=now)
            uow.commit()
            self._artifacts.discard(lease.job_id)

    def give_back(self, lease: Lease) -> None:
        """The worker stops: the job waits in the queue, and goes on from what it has made (or had ended already)."""
        with suppress(Conflict), self._database.session() as uow:
            now = self._clock()
            uow.jobs.move(lease.job_id, JobStatus.QUEUED, now=now, attempt=lease.attempt)
            uow.events.add(lease.job_id, "job_interrupted", "the worker stopped; the job is queued again", now=now)
            uow.commit()

    def end_dead(self, lease: Lease, *, exit_code: int, last_words: str) -> None:
        """The process ended without ending the job (killed, out of memory): the job failed, and it was not the user."""
        with self._database.session() as uow:
            job = uow.jobs.get(lease.job_id)
            if job.status is not JobStatus.RUNNING or job.attempt != lease.attempt:
                return
            now = self._clock()
            how = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
            message = f"the process of the job ended with {how}{': ' + last_words if last_words else ''}"
            uow.jobs.move(
                lease.job_id,
                JobStatus.FAILED,
                now=now,
                attempt=lease.attempt,
                failure=Failure("process_died", message, fault=Fault.SERVICE),
            )
            uow.stage_runs.fail(lease.job_id, now=now)
            uow.events.add(lease.job_id, "job_failed", message, now=now, level=EventLevel.ERROR)
            uow.commit()
        self._artifacts.discard(lease.job_id)
