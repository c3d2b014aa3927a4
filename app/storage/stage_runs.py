"""Named queries of stage runs: how far each stage of a job is. Knows nothing about the order of stages: it is given."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.core.errors import NotFound
from app.core.states import JobStatus, StageStatus
from app.models import Job, StageRun


class StageRunRepository:
    """Stage runs of the unit of work's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def ensure(self, job_id: str, stages: Sequence[str]) -> None:
        """Have one pending row a stage, in this order; rows that are there stay as they are."""
        there = {run.stage for run in self.list(job_id)}
        for position, stage in enumerate(stages):
            if stage not in there:
                self._session.add(StageRun(job_id=job_id, stage=stage, position=position))
        self._session.flush()

    def plan(self, job_id: str, planned: Mapping[str, Mapping[str, Any]]) -> None:
        """Note what each stage is expected to do, by its name."""
        for run in self.list(job_id):
            if run.stage in planned:
                run.planned = dict(planned[run.stage])
        self._session.flush()

    def list(self, job_id: str) -> Sequence[StageRun]:
        """The job's stages in order."""
        return self.of([job_id])[job_id]

    def of(self, job_ids: Collection[str]) -> dict[str, Sequence[StageRun]]:
        """The stages of many jobs by one query, each job's in order; none of a job that is not known."""
        query = select(StageRun).where(StageRun.job_id.in_(job_ids)).order_by(StageRun.job_id, StageRun.position)
        found: dict[str, Sequence[StageRun]] = {job_id: [] for job_id in job_ids}
        runs = self._session.scalars(query.execution_options(populate_existing=True))
        return found | {job_id: list(group) for job_id, group in groupby(runs, key=lambda run: run.job_id)}

    def open(self) -> Sequence[tuple[Job, Sequence[StageRun]]]:
        """Jobs that are queued or running, each with its stages in order; the oldest job first."""
        query = select(Job, StageRun).outerjoin(StageRun, StageRun.job_id == Job.id)
        query = query.where(Job.status.in_([JobStatus.QUEUED, JobStatus.RUNNING]))
        query = query.order_by(Job.created_at, Job.id, StageRun.position)
        rows = self._session.execute(query.execution_options(populate_existing=True))
        jobs = groupby(rows, key=lambda row: row[0])
        return [(job, [run for _, run in group if run is not None]) for job, group in jobs]

    def get(self, job_id: str, stage: str) -> StageRun:
        """One stage of a job; raises NotFound."""
        query = select(StageRun).where(StageRun.job_id == job_id, StageRun.stage == stage)
        run = self._session.scalar(query.execution_options(populate_existing=True))
        if run is None:
            raise NotFound(f"job {job_id!r} has no stage {stage!r}", param="stage")
        return run

    def start(self, job_id: str, stage: str, *, now: datetime, total: int | None = None) -> StageRun:
        """The stage begins (or begins again after a kill; what it has done stays) and becomes the job's current one."""
        run = self.get(job_id, stage)
        run.status, run.finished_at = StageStatus.RUNNING, None
        run.started_at, run.worked_at = run.started_at or now, now
        run.total = run.total if total is None else total
        self._session.flush()
        self._session.execute(update(Job).where(Job.id == job_id).values(stage=stage))
        return run

    def progress(
        self, job_id: str, stage: str, *, done: int, total: int | None = None, detail: Mapping[str, Any] | None = None
    ) -> None:
        """Say how much is done, and what there is to tell beside; what is None stays as it was."""
        values: dict[str, Any] = {"done": done}
        if total is not None:
            values["total"] = total
        if detail is not None:
            values["detail"] = dict(detail)
        self._session.execute(
            update(StageRun).where(StageRun.job_id == job_id, StageRun.stage == stage).values(**values)
        )

    def note_work(self, job_id: str, stage: str, *, seconds: float, work: Mapping[str, Any], now: datetime) -> None:
        """How long the stage was worked on, over all attempts, and what the engine did for it in that time."""
        values = {"worked_seconds": seconds, "work": dict(work), "worked_at": now}
        self._session.execute(
            update(StageRun).where(StageRun.job_id == job_id, StageRun.stage == stage).values(**values)
        )

    def finish(
        self,
        job_id: str,
        stage: str,
        *,
        now: datetime,
        artifact_digest: str | None = None,
        done: int | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> StageRun:
        """The stage has made its artifact. Whatever was promised, ``total`` is then what was done."""
        run = self.get(job_id, stage)
        run.status, run.finished_at, run.started_at = StageStatus.SUCCEEDED, now, run.started_at or now
        run.done = run.done if done is None else done
        run.total = run.done
        run.artifact_digest = artifact_digest
        run.detail = {**run.detail, **(detail or {})}
        self._session.flush()
        return run

    def replace_product(self, job_id: str, stage: str, *, artifact_digest: str, detail: Mapping[str, Any]) -> None:
        """A finished stage has another artifact than it made itself; ``detail`` says what came of it."""
        run = self.get(job_id, stage)
        run.artifact_digest, run.detail = artifact_digest, {**run.detail, **detail}
        self._session.flush()

    def skip(self, job_id: str, stage: str, *, now: datetime) -> None:
        """The stage is not needed."""
        run = self.get(job_id, stage)
        run.status, run.finished_at = StageStatus.SKIPPED, now
        self._session.flush()

    def pause(self, job_id: str) -> None:
        """Whichever stage was running is to go on later."""
        running = update(StageRun).where(StageRun.job_id == job_id, StageRun.status == StageStatus.RUNNING)
        self._session.execute(running.values(status=StageStatus.PENDING))

    def reopen(self, job_id: str) -> None:
        """Whichever stage had failed or was cancelled is to go on."""
        ended = StageRun.status.in_([StageStatus.FAILED, StageStatus.CANCELLED])
        changed = update(StageRun).where(StageRun.job_id == job_id, ended)
        self._session.execute(changed.values(status=StageStatus.PENDING, finished_at=None))

    def fail(
        self, job_id: str, *, now: datetime, stage: str | None = None, status: StageStatus = StageStatus.FAILED
    ) -> None:
        """End a stage that was running, or (``stage`` None) whichever is, as failed or cancelled."""
        ended = update(StageRun).where(StageRun.job_id == job_id, StageRun.status == StageStatus.RUNNING)
        if stage is not None:
            ended = ended.where(StageRun.stage == stage)
        self._session.execute(ended.values(status=status, finished_at=now))
