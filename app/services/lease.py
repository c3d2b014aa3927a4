"""The lease of a job as the worker sees it: take it, keep it, and say how it ended when its process is gone."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from app.core.errors import Conflict, Fault
from app.core.event_types import EventType
from app.core.states import JobStatus, StageStatus, WaitsFor
from app.models import EventLevel
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database, UnitOfWork
from app.storage.jobs import Failure

MAX_DEATHS = 3
WORKER_LOST = (
    "the worker was lost while it worked on the job: its process, container or machine ended without a word, "
    "maybe for want of memory"
)
_AT_ONCE = 100  # jobs that a look considers


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on a job: valid while the row names this owner and attempt."""

    job_id: str
    owner: str
    attempt: int


class LeaseLost(Conflict):
    """Another process has this job now, or it ended: stop, and write nothing."""

    code = "lease_lost"


class Held(Exception):
    """The job went back to the queue, where it waits for a person: stop, and write nothing more."""

    def __init__(self, job_id: str, waits_for: WaitsFor) -> None:
        super().__init__(f"job {job_id} waits for {waits_for}")


class LeaseService:
    """Short transactions on one job's row. What a lease that was lost asks for is not done."""

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactStore,
        *,
        clock: Callable[[], datetime],
        lease_seconds: float,
        max_deaths: int = MAX_DEATHS,
    ) -> None:
        """``max_deaths``: so many of a job's processes may die, one after another without saving anything new."""
        self._database, self._artifacts, self._clock = database, artifacts, clock
        self._lease_seconds, self._max_deaths = lease_seconds, max_deaths

    def candidates(self) -> Sequence[str]:
        """The oldest jobs that may be taken, whatever they need."""
        with self._database.session(read_only=True) as uow:
            return uow.jobs.takeable_ids(now=self._clock(), lease_seconds=self._lease_seconds, limit=_AT_ONCE)

    def take(self, job_id: str, *, owner: str) -> Lease | None:
        """The lease, or None if the job is someone else's or ended.

        A job that takes its whole worker with it (a container whose memory it fills) dies like one whose process was
        killed: here is where that is noticed, and where it ends if nothing helps.
        """
        with self._database.session() as uow:
            now = self._clock()
            claim = uow.jobs.claim(job_id, owner=owner, now=now, lease_seconds=self._lease_seconds)
            if claim is None:
                return None
            lease = Lease(job_id, owner, claim.attempt)
            is_given_up = claim.is_takeover and self._is_given_up(uow, lease, "worker_lost", WORKER_LOST, now=now)
            if not is_given_up:
                uow.events.add(job_id, "job_started", f"attempt {claim.attempt}", now=now, data={"owner": owner})
            uow.commit()
        return None if is_given_up else lease

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
            self._cancel(uow, lease)
            uow.commit()

    def end_left(self) -> list[str]:
        """Cancel the jobs whose owners were asked to and are gone; returns their ids."""
        with self._database.session(read_only=True) as uow:
            expired = uow.jobs.expired_ids(now=self._clock(), lease_seconds=self._lease_seconds)
            asked = [job_id for job_id in expired if uow.jobs.get(job_id).cancel_requested]
        return [job_id for job_id in asked if self._end_left(job_id)]

    def give_back(
        self,
        lease: Lease,
        *,
        told: str = "the worker stopped; the job is queued again",
        waits_for: WaitsFor | None = None,
    ) -> None:
        """The job waits in the queue, and goes on from what it has made (or had ended already)."""
        with suppress(Conflict), self._database.session() as uow:
            uow.events.add(lease.job_id, "job_interrupted", told, now=self._clock())
            self._queue_again(uow, lease, waits_for)
            uow.commit()

    def note_death(self, lease: Lease, *, exit_code: int, last_words: str) -> None:
        """The process ended without ending the job (killed, out of memory): another try, unless too many died."""
        how = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
        message = f"the process of the job ended with {how}{': ' + last_words if last_words else ''}"
        with suppress(Conflict), self._database.session() as uow:
            if not self._is_given_up(uow, lease, "process_died", message, now=self._clock()):
                self._queue_again(uow, lease, None)
            uow.commit()

    def _is_given_up(self, uow: UnitOfWork, lease: Lease, type: EventType, message: str, *, now: datetime) -> bool:
        """Count a death and tell of it; too many, and the job has failed. Raises Conflict if the lease is lost."""
        deaths, job = uow.jobs.count_death(lease.job_id), uow.jobs.get(lease.job_id)
        is_given_up = deaths >= self._max_deaths and not job.cancel_requested
        then = "the job is given up" if is_given_up else "it goes on from what it has made"
        told = f"{message} ({deaths} of {self._max_deaths} without saving anything new); {then}"
        data = {"deaths": deaths, "max_deaths": self._max_deaths}
        uow.events.add(job.id, type, told, now=now, level=EventLevel.WARNING, stage=job.stage, data=data)
        if is_given_up:
            self._fail(uow, lease, type, message)
        return is_given_up

    def _fail(self, uow: UnitOfWork, lease: Lease, code: str, message: str) -> None:
        """Raises Conflict if the lease is lost."""
        now, failure = self._clock(), Failure(code, message, fault=Fault.SERVICE)
        uow.jobs.move(lease.job_id, JobStatus.FAILED, now=now, attempt=lease.attempt, failure=failure)
        uow.stage_runs.fail(lease.job_id, now=now)
        uow.events.add(lease.job_id, "job_failed", message, now=now, level=EventLevel.ERROR)
        self._artifacts.discard(lease.job_id)

    def _queue_again(self, uow: UnitOfWork, lease: Lease, waits_for: WaitsFor | None) -> None:
        """Raises Conflict if the lease is lost. What was asked for meanwhile is done: it is cancelled, or paused."""
        job, now = uow.jobs.get(lease.job_id, for_update=True), self._clock()
        if job.cancel_requested:
            self._cancel(uow, lease)
            return
        is_paused = job.pause_requested
        reason = WaitsFor.RESUME if is_paused else waits_for
        uow.jobs.move(lease.job_id, JobStatus.QUEUED, now=now, attempt=lease.attempt, waits_for=reason)
        uow.stage_runs.pause(lease.job_id)
        if is_paused:
            uow.events.add(lease.job_id, "job_paused", "paused on request; what is made stays", now=now)

    def _cancel(self, uow: UnitOfWork, lease: Lease) -> None:
        """Raises Conflict if the lease is lost."""
        now = self._clock()
        uow.jobs.move(lease.job_id, JobStatus.CANCELLED, now=now, attempt=lease.attempt)
        tell_cancelled(uow, self._artifacts, lease.job_id, now=now)

    def _end_left(self, job_id: str) -> bool:
        with self._database.session() as uow:
            now, was_final = self._clock(), uow.jobs.get(job_id, for_update=True).status.is_final
            job = uow.jobs.request_cancel(job_id, now=now, lease_seconds=self._lease_seconds)
            if is_ended := not was_final and job.status.is_final:
                tell_cancelled(uow, self._artifacts, job_id, now=now)
            uow.commit()
        return is_ended


def tell_cancelled(uow: UnitOfWork, artifacts: ArtifactStore, job_id: str, *, now: datetime) -> None:
    """What goes with a job's end by request, before anybody can see it ended and try it again."""
    uow.stage_runs.fail(job_id, now=now, status=StageStatus.CANCELLED)
    uow.events.add(job_id, "job_cancelled", "cancelled on request", now=now)
    artifacts.discard(job_id)
