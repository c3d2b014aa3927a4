"""Named queries of jobs: who may work on one (the lease), how it moves, how it is cancelled.

Whatever two processes could do at once is one UPDATE whose WHERE says what must still be true. Knows nothing about
what a job does. Every ``now`` is an aware datetime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from sqlalchemy import ColumnElement, and_, func, or_, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.errors import Conflict, Fault, NotFound, SelfspecError, StageFailed
from app.core.states import JobStatus, WaitsFor, check_move
from app.models import Job


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed, as its row tells it."""

    code: str
    message: str
    param: str | None = None
    fault: Fault = Fault.SERVICE

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """From what was raised: ours keeps its code and blames the user for 4xx, anything else is an internal error."""
        if isinstance(error, StageFailed):
            return cls(error.code, error.message, error.param, error.fault)
        if isinstance(error, SelfspecError):
            return cls(error.code, error.message, error.param, Fault.USER if error.status < 500 else Fault.SERVICE)
        return cls("internal_error", f"{type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim got: the attempt's number, from 1, and whether an owner had fallen silent."""

    attempt: int
    is_takeover: bool


class JobRepository:
    """Jobs of the unit of work's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, job: Job) -> Job:
        """Store a new job; its domain and sets must be there. Raises Conflict if its idempotency key is taken."""
        try:
            with self._session.begin_nested():
                self._session.add(job)
        except IntegrityError as error:
            if job.idempotency_key is None or self.by_idempotency_key(job.idempotency_key) is None:
                raise
            raise Conflict("this Idempotency-Key was used before", param="idempotency_key") from error
        return job

    def get(self, job_id: str, *, for_update: bool = False) -> Job:
        """The job as it is now; raises NotFound. ``for_update``: nobody else changes it until this transaction ends."""
        query = select(Job).where(Job.id == job_id).execution_options(populate_existing=True)
        job = self._session.scalar(query.with_for_update(key_share=True) if for_update else query)
        if job is None:
            raise NotFound(f"there is no job {job_id!r}", param="job_id")
        return job

    def of(self, job_ids: Sequence[str]) -> list[Job]:
        """These jobs, in this order; ids that are none are left out."""
        found = {job.id: job for job in self._session.scalars(select(Job).where(Job.id.in_(job_ids)))}
        return [found[job_id] for job_id in job_ids if job_id in found]

    def list(
        self,
        *,
        after: str | None = None,
        limit: int = 20,
        domain: str | None = None,
        status: JobStatus | None = None,
    ) -> Sequence[Job]:
        """At most ``limit`` jobs, newest first, from behind the job ``after`` (NotFound if there is none)."""
        query = select(Job).order_by(Job.created_at.desc(), Job.id.desc()).limit(limit)
        if domain is not None:
            query = query.where(Job.domain == domain)
        if status is not None:
            query = query.where(Job.status == status)
        if after is not None:
            last = self.get(after)
            query = query.where(tuple_(Job.created_at, Job.id) < (last.created_at, last.id))
        return self._session.scalars(query).all()

    def by_idempotency_key(self, key: str) -> Job | None:
        """The job that a request with this key made."""
        return self._session.scalar(select(Job).where(Job.idempotency_key == key))

    def claim(self, job_id: str, *, owner: str, now: datetime, lease_seconds: float) -> Claim | None:
        """Take the lease of a job that is queued, or running with its lease run out.

        Returns None if the job is someone else's, waits for a person, is final or unknown. A job whose cancellation or
        pause was requested can be claimed: its new owner is the one to end it.
        """
        if (attempt := self._take(job_id, _is_next(), owner=owner, now=now)) is not None:
            return Claim(attempt, is_takeover=False)
        if (attempt := self._take(job_id, _expired(now, lease_seconds), owner=owner, now=now)) is not None:
            return Claim(attempt, is_takeover=True)
        return None

    def _take(self, job_id: str, free: ColumnElement[bool], *, owner: str, now: datetime) -> int | None:
        return self._session.scalar(
            update(Job)
            .where(Job.id == job_id, free)
            .values(
                status=JobStatus.RUNNING,
                waits_for=None,
                owner=owner,
                heartbeat_at=now,
                attempt=Job.attempt + 1,
                started_at=func.coalesce(Job.started_at, now),
            )
            .returning(Job.attempt)
            .execution_options(synchronize_session=False)
        )

    def heartbeat(self, job_id: str, *, owner: str, attempt: int, now: datetime) -> bool:
        """Renew the lease. False: it is lost (taken over, ended or cancelled) and the work must stop."""
        held = and_(Job.owner == owner, Job.attempt == attempt, Job.status == JobStatus.RUNNING)
        return self._update(job_id, held, heartbeat_at=now)

    def move(
        self,
        job_id: str,
        after: JobStatus,
        *,
        now: datetime,
        attempt: int | None = None,
        failure: Failure | None = None,
        adapter_id: str | None = None,
        waits_for: WaitsFor | None = None,
    ) -> Job:
        """Change the status, by the table of moves. ``attempt`` makes it valid only for the holder of that lease.

        ``waits_for``: why a job goes back to the queue, if it is not simply the next there. Raises NotFound, and
        Conflict if the move is not allowed, the status changed meanwhile or the lease was lost. Only ``claim`` makes
        a job running, only ``retry`` brings a final one back.
        """
        before = self.get(job_id).status
        check_move(before, after)
        if after is JobStatus.RUNNING or before.is_final:
            raise Conflict(f"a job that is {before} becomes {after} only when it is claimed or retried", param="status")
        still = Job.status == before
        if attempt is not None:
            still = and_(still, Job.status == JobStatus.RUNNING, Job.attempt == attempt)
        if not self._update(job_id, still, **_changes(after, now, failure, adapter_id, waits_for)):
            raise Conflict(f"job {job_id} is no longer {before} under this lease", param="status")
        return self.get(job_id)

    def request_cancel(self, job_id: str, *, now: datetime, lease_seconds: float | None = None) -> Job:
        """Cancel at once what has not begun; ask the owner of a running job to end it; leave a final job as it is.

        ``lease_seconds``: an owner that has been silent for longer is not asked, its job ends at once too.
        """
        waiting: ColumnElement[bool] = Job.status.in_([JobStatus.QUEUED, JobStatus.VALIDATING_FILES])
        ended = {"status": JobStatus.CANCELLED, "cancel_requested": True, "finished_at": now, "waits_for": None}
        if lease_seconds is not None:
            waiting = or_(waiting, _expired(now, lease_seconds))
        if not self._update(job_id, waiting, **ended, pause_requested=False):
            self._update(job_id, Job.status == JobStatus.RUNNING, cancel_requested=True)
        return self.get(job_id)

    def count_death(self, job_id: str) -> int:
        """Its process died; returns how many did, one after another without saving anything new."""
        counted = update(Job).where(Job.id == job_id).values(deaths=Job.deaths + 1).returning(Job.deaths)
        return self._session.scalars(counted.execution_options(synchronize_session=False)).one()

    def forget_deaths(self, job_id: str) -> None:
        """The job got further: those that died before count no more."""
        self._update(job_id, Job.deaths > 0, deaths=0)

    def request_pause(self, job_id: str) -> Job:
        """Hold what has not begun; ask the owner of a running job to. Raises NotFound, and Conflict for a final job."""
        queued = and_(Job.status == JobStatus.QUEUED, Job.waits_for.is_distinct_from(WaitsFor.REVIEW))
        if not self._update(job_id, queued, waits_for=WaitsFor.RESUME):
            self._update(job_id, Job.status == JobStatus.RUNNING, pause_requested=True)
        job = self.get(job_id)
        if job.status.is_final:
            raise Conflict(f"job {job_id} is {job.status}: there is nothing to pause", param="status")
        return job

    def resume(self, job_id: str) -> Job:
        """Let a paused or reviewed job be the next again; take back a pause that has not happened yet.

        Raises NotFound, and Conflict if the job is not held.
        """
        held = and_(Job.status == JobStatus.QUEUED, Job.waits_for.in_([WaitsFor.RESUME, WaitsFor.REVIEW]))
        asked = and_(Job.status == JobStatus.RUNNING, Job.pause_requested)
        if not (self._update(job_id, held, waits_for=None) or self._update(job_id, asked, pause_requested=False)):
            job = self.get(job_id)
            remedy = "it has ended" if job.status.is_final else "it goes on by itself"
            raise Conflict(f"job {job_id} is {job.status} and was not paused: {remedy}", param="status")
        return self.get(job_id)

    def retry(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again; what it has made stays. Raises NotFound, Conflict for any other."""
        ended = Job.status.in_([JobStatus.FAILED, JobStatus.CANCELLED])
        errors: dict[str, Any] = dict.fromkeys(("error_code", "error_message", "error_param", "error_fault"))
        anew = {"cancel_requested": False, "pause_requested": False, "deaths": 0, "finished_at": None, **_FREE}
        if not self._update(job_id, ended, status=JobStatus.QUEUED, **errors, **anew):
            told = f"job {job_id} is {self.get(job_id).status}: only a failed or cancelled one is tried again"
            raise Conflict(told, param="status")
        return self.get(job_id)

    def note_wait(self, job_id: str, waits_for: WaitsFor) -> bool:
        """Say why a queued job is not taken up. False: that was known, or it is queued no more or held by a person."""
        held = Job.waits_for.in_([reason for reason in WaitsFor if reason.is_for_people or reason is waits_for])
        still = and_(Job.status == JobStatus.QUEUED, or_(Job.waits_for.is_(None), ~held))
        return self._update(job_id, still, waits_for=waits_for)

    def queued_ids(self) -> Sequence[str]:
        """Jobs that a worker may take, oldest first; those that wait for a person are not among them."""
        return self._session.scalars(select(Job.id).where(_is_next()).order_by(Job.created_at, Job.id)).all()

    def takeable_ids(self, *, now: datetime, lease_seconds: float, limit: int) -> Sequence[str]:
        """The oldest jobs that a worker may claim: those that are next and those whose lease ran out."""
        query = select(Job.id).where(or_(_is_next(), _expired(now, lease_seconds)))
        return self._session.scalars(query.order_by(Job.created_at, Job.id).limit(limit)).all()

    def expired_ids(self, *, now: datetime, lease_seconds: float) -> Sequence[str]:
        """Running jobs whose owner has been silent for longer than the lease, oldest first."""
        query = select(Job.id).where(_expired(now, lease_seconds))
        return self._session.scalars(query.order_by(Job.created_at, Job.id)).all()

    def _update(self, job_id: str, condition: ColumnElement[bool], **values: Any) -> bool:
        statement = update(Job).where(Job.id == job_id, condition).values(**values).returning(Job.id)
        return self._session.scalar(statement.execution_options(synchronize_session=False)) is not None


_FREE: dict[str, Any] = {"owner": None, "heartbeat_at": None}  # nobody's lease


def _is_next() -> ColumnElement[bool]:
    for_people = [reason for reason in WaitsFor if reason.is_for_people]
    return and_(Job.status == JobStatus.QUEUED, or_(Job.waits_for.is_(None), Job.waits_for.not_in(for_people)))


def _expired(now: datetime, lease_seconds: float) -> ColumnElement[bool]:
    silent_since = func.coalesce(Job.heartbeat_at, Job.started_at, Job.created_at)
    return and_(Job.status == JobStatus.RUNNING, silent_since < now - timedelta(seconds=lease_seconds))


def _changes(
    after: JobStatus, now: datetime, failure: Failure | None, adapter_id: str | None, waits_for: WaitsFor | None
) -> dict[str, Any]:
    values: dict[str, Any] = {"status": after, "waits_for": waits_for, "pause_requested": False}
    if after.is_final:
        values["finished_at"] = now
    else:
        values |= _FREE
    if adapter_id is not None:
        values["adapter_id"] = adapter_id
    if failure is not None:
        values |= {
            "error_code": failure.code,
            "error_message": failure.message,
            "error_param": failure.param,
            "error_fault": failure.fault,
        }
    return values
