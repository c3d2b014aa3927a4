"""Named queries of stage runs: how far each stage of a job is. Knows nothing about the order of stages: it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.core.errors import NotFound
from app.core.states import StageStatus
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

    def list(self, job_id: str) -> Sequence[StageRun]:
        """The job's stages in order."""
        query = select(StageRun).where(StageRun.job_id == job_id).order_by(StageRun.position)
        return self._session.scalars(query.execution_options(populate_existing=True)).all()

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
        run.started_at = run.started_at or now
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

    def skip(self, job_id: str, stage: str, *, now: datetime) -> None:
        """The stage is not needed."""
        run = self.get(job_id, stage)
        run.status, run.finished_at = StageStatus.SKIPPED, now
        self._session.flush()

    def fail(
        self, job_id: str, *, now: datetime, stage: str | None = None, status: StageStatus = StageStatus.FAILED
    ) -> None:
        """End a stage that was running, or (``stage`` None) whichever is, as failed or cancelled."""
        ended = update(StageRun).where(StageRun.job_id == job_id, StageRun.status == StageStatus.RUNNING)
        if stage is not None:
            ended = ended.where(StageRun.stage == stage)
        self._session.execute(ended.values(status=status, finished_at=now))
