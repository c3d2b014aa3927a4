"""What callers may do to a job: cancel it, pause it, let it go on, try it again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from app.core.states import JobStatus, WaitsFor
from app.models import Job
from app.services.dispatch import Dispatcher
from app.services.jobs import job_view
from app.services.lease import tell_cancelled
from app.services.review import Review
from app.services.views import JobView
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database, UnitOfWork


class JobMover:
    """One short transaction a move, on a row that nobody else changes meanwhile; a running job is its worker's to end.

    Every method raises NotFound.
    """

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactStore,
        *,
        dispatcher: Dispatcher,
        review: Review,
        clock: Callable[[], datetime],
        lease_seconds: float,
    ) -> None:
        self._database, self._artifacts, self._clock = database, artifacts, clock
        self._dispatcher, self._review, self._lease_seconds = dispatcher, review, lease_seconds

    def cancel(self, job_id: str) -> JobView:
        """End a job that nobody works on, with its unfinished files; ask the worker who does; leave an ended one."""
        with self._database.session() as uow:
            before = uow.jobs.get(job_id, for_update=True)
            was_final, was_requested = before.status.is_final, before.cancel_requested
            job = uow.jobs.request_cancel(job_id, now=self._clock(), lease_seconds=self._lease_seconds)
            if not (was_final or was_requested):
                uow.events.add(job_id, "cancel_requested", "cancellation requested", now=self._clock())
            if not was_final and job.status.is_final:
                tell_cancelled(uow, self._artifacts, job_id, now=self._clock())
            view = job_view(uow, job, self._clock())
            uow.commit()
        return view

    def pause(self, job_id: str) -> JobView:
        """Hold a waiting job; a running one stops where nothing is lost. Raises Conflict for an ended one."""
        with self._database.session() as uow:
            before = uow.jobs.get(job_id, for_update=True)
            was_asked = before.pause_requested or before.waits_for in {WaitsFor.RESUME, WaitsFor.REVIEW}
            job = uow.jobs.request_pause(job_id)
            if not was_asked:
                uow.events.add(job_id, "pause_requested", "pause requested", now=self._clock())
                if not job.pause_requested:
                    uow.events.add(job_id, "job_paused", "paused while it waited", now=self._clock())
            view = job_view(uow, job, self._clock())
            uow.commit()
        return view

    def resume(self, job_id: str) -> JobView:
        """Let a job that is paused or held for review go on, with its rows as they are now; raises Conflict for others.

        Also if every row was deleted, or one was changed this very moment.
        """
        reviewed = self._review.prepare(job_id)

        def resume(uow: UnitOfWork, job: Job) -> Job:
            self._review.settle(uow, job, reviewed, now=self._clock())
            resumed = uow.jobs.resume(job_id)
            uow.events.add(job_id, "job_resumed", "resumed on request", now=self._clock())
            return resumed

        return self._send_again(job_id, resume)

    def retry(self, job_id: str) -> JobView:
        """Queue a failed or cancelled job again, to go on from what it made; raises Conflict for others."""

        def retry(uow: UnitOfWork, _: Job) -> Job:
            job = uow.jobs.retry(job_id)
            uow.stage_runs.reopen(job_id)
            uow.events.add(job_id, "job_retried", "another try was asked for", now=self._clock())
            self._review.hold_again(uow, job, now=self._clock())
            return uow.jobs.get(job_id)

        return self._send_again(job_id, retry)

    def _send_again(self, job_id: str, move: Callable[[UnitOfWork, Job], Job]) -> JobView:
        with self._database.session() as uow:
            job = move(uow, uow.jobs.get(job_id, for_update=True))
            view = job_view(uow, job, self._clock())
            uow.commit()
        if view.status is JobStatus.QUEUED and view.waits_for is None:
            self._dispatcher.send(job_id)
        return view
