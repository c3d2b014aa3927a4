"""Jobs as callers see them: where they stand, what happened, what they made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from app.core.errors import NotFound
from app.core.states import JobStatus, StageStatus
from app.models import Event, Job, Metric, StageRun
from app.pipeline.metrics import REPORT, Report
from app.pipeline.rows import from_row
from app.services.job_stages import DATASET, Made, find_dataset, walk_of
from app.services.outlook import Outlook, Prospect, seconds_remaining, seconds_worked
from app.services.views import EventView, JobError, JobMetrics, JobView, MetricView, Page, StageProgress
from app.storage.artifacts import ROWS, ArtifactStore, read_rows
from app.storage.database import Database, UnitOfWork

METRICS_STAGE = "metrics"


class JobService:
    """Reads jobs in short transactions; every method may block on the database."""

    def __init__(self, database: Database, artifacts: ArtifactStore, *, clock: Callable[[], datetime]) -> None:
        self._database, self._artifacts, self._clock = database, artifacts, clock

    def get(self, job_id: str) -> JobView:
        """One job; raises NotFound."""
        with self._database.session(read_only=True) as uow:
            return job_view(uow, uow.jobs.get(job_id), self._clock())

    def list(
        self, *, after: str | None = None, limit: int = 20, domain: str | None = None, status: JobStatus | None = None
    ) -> Page[JobView]:
        """The newest first; ``after`` is the last id of the page before (NotFound if there is no such job)."""
        with self._database.session(read_only=True) as uow:
            jobs = uow.jobs.list(after=after, limit=limit + 1, domain=domain, status=status)
            views = job_views(uow, jobs[:limit], self._clock())
        return Page(views, views[-1].id if len(jobs) > limit else None)

    def events(self, job_id: str, *, after: int = 0, limit: int = 100) -> Page[EventView]:
        """What happened, oldest first, behind the event ``after``; raises NotFound."""
        with self._database.session(read_only=True) as uow:
            uow.jobs.get(job_id)
            events = uow.events.list(job_id, after=after, limit=limit + 1)
        views = tuple(event_view(event) for event in events[:limit])
        return Page(views, str(views[-1].id) if len(events) > limit else None)

    def metrics(self, job_id: str) -> JobMetrics:
        """Figures of the expert and of all it is compared with; raises NotFound while there are none."""
        with self._database.session(read_only=True) as uow:
            job = uow.jobs.get(job_id)
            metrics = uow.metrics.list(job_id=job_id)
            digests = [run.artifact_digest for run in uow.stage_runs.list(job_id) if run.stage == METRICS_STAGE]
        if not metrics:
            raise NotFound(f"job {job_id} has no metrics{_so_far(job)}", param="job_id")
        return JobMetrics(tuple(metric_view(metric) for metric in metrics), self._report(next(iter(digests), None)))

    def _report(self, digest: str | None) -> Report | None:
        try:
            folder = self._artifacts.open(digest or "", kind=METRICS_STAGE).folder
        except NotFound:
            return None
        return next((from_row(Report, row) for row in read_rows(folder / REPORT)), None)

    def dataset(self, job_id: str) -> Path:
        """The file of all rows (JSONL) that the expert learned, or the newest there are; raises NotFound."""
        with self._database.session(read_only=True) as uow:
            job = uow.jobs.get(job_id)
            made = Made.of(uow, job)
            stage = find_dataset(uow, job, made)
        if stage is None:
            raise NotFound(f"job {job_id} has no dataset{_so_far(job)}", param="job_id")
        return self._artifacts.open(made.digests[stage], kind=DATASET).folder / ROWS


def metric_view(metric: Metric) -> MetricView:
    """A row of the table as callers see it."""
    return MetricView(
        task=metric.task,
        metric=metric.metric,
        n=metric.n,
        against=metric.against,
        shots=metric.shots,
        score=metric.score,
        expert=metric.expert,
        difference=metric.difference,
        low=metric.low,
        high=metric.high,
    )


def job_view(uow: UnitOfWork, job: Job, now: datetime) -> JobView:
    """A row of the table, and what belongs to it, as callers see it."""
    return job_views(uow, [job], now)[0]


def job_views(uow: UnitOfWork, jobs: Sequence[Job], now: datetime) -> tuple[JobView, ...]:
    """The same of many jobs, by as many queries as of one."""
    runs = uow.stage_runs.of([job.id for job in jobs])
    sets = {name for job in jobs for name in (job.seed_set_id, job.evaluation_set_id) if name}
    num_rows = uow.seed_sets.num_rows(sets)
    outlook = Outlook() if all(job.status.is_final for job in jobs) else Outlook.read(uow, now)
    return tuple(_view(job, runs[job.id], num_rows, outlook.jobs.get(job.id, Prospect()), now) for job in jobs)


def _view(
    job: Job, runs: Sequence[StageRun], num_rows: Mapping[str, int], prospect: Prospect, now: datetime
) -> JobView:
    return JobView(
        id=job.id,
        domain=job.domain,
        status=job.status,
        stage=job.stage,
        progress=tuple(_stage(run, now=job.finished_at or now) for run in runs),
        base=job.base,
        recipe=dict(job.recipe),
        num_seeds=num_rows[job.seed_set_id],
        num_evaluation=num_rows[job.evaluation_set_id] if job.evaluation_set_id else None,
        adapter=job.adapter_id,
        error=_error(job),
        attempt=job.attempt,
        waits_for=job.waits_for,
        cancel_requested=job.cancel_requested,
        pause_requested=job.pause_requested,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        queue_position=prospect.position,
        seconds_remaining=prospect.seconds_remaining,
        estimated_finish=prospect.finish(now),
        trained_tokens=_trained_tokens(job, runs),
    )


def _error(job: Job) -> JobError | None:
    if job.error_code is None or job.error_fault is None:
        return None
    return JobError(job.error_code, job.error_message or "", job.error_param, job.error_fault)


def _trained_tokens(job: Job, runs: Sequence[StageRun]) -> int | None:
    """That the expert learned from, each as often as it was read; None while there is no expert."""
    candidates = {stage.name for stage in walk_of(job) if stage.is_candidate}
    learned = [run for run in runs if run.artifact_digest and "tokens" in run.detail and run.stage in candidates]
    expert = [run for run in learned if (run.artifact_digest or "").startswith(job.adapter_id or " ")]
    found = next(iter(expert or learned), None) if job.adapter_id else None
    return None if found is None else int(found.detail["tokens"])


def _stage(run: StageRun, *, now: datetime) -> StageProgress:
    seconds = seconds_worked(run, now) if run.started_at else None
    left = None
    if run.status is StageStatus.RUNNING and seconds is not None:
        left = seconds_remaining(done=run.done, total=run.total, seconds=seconds)
    return StageProgress(
        stage=run.stage,
        status=run.status,
        done=run.done,
        total=run.total,
        seconds=seconds,
        seconds_remaining=left,
        started_at=run.started_at,
        finished_at=run.finished_at,
        detail=dict(run.detail),
    )


def event_view(event: Event) -> EventView:
    """A row of the table as callers see it."""
    return EventView(
        id=event.id,
        created_at=event.created_at,
        level=event.level.value,
        type=event.type,
        stage=event.stage,
        message=event.message,
        data=dict(event.data),
    )


def _so_far(job: Job) -> str:
    if job.status.is_final:
        return f": it ended as {job.status.value}" + (f" in stage {job.stage}" if job.stage else "")
    return f" yet: it is {job.status.value}" + (f", at stage {job.stage}" if job.stage else "")
