"""Jobs as OpenAI's fine-tuning API orders and tells them; behind it is the same job that POST /specialize makes.

Jobs that came by another door are told in the same words: their training file is their set of seeds (``job_files``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.core.errors import InvalidInput, NotFound, Problem
from app.core.recipe import Recipe
from app.core.records import TrainingReport
from app.core.states import JobStatus
from app.models import FineTuning, Job
from app.pipeline.adapter import REPORT
from app.pipeline.rows import from_row, to_row
from app.services.adapters import KIND as ADAPTER
from app.services.job_files import result_file_ids, set_file_id
from app.services.jobs import event_view, job_views
from app.services.specialize import Accepted, Specializer
from app.services.tuning_order import Hyperparameters, TuningOrder, to_request, told
from app.services.uploaded_files import UploadedFiles
from app.services.views import EventView, JobView, Page
from app.storage.artifacts import ArtifactStore, read_rows
from app.storage.database import Database, UnitOfWork

EVENT_PREFIX, CHECKPOINT_PREFIX = "ftevent-", "ftckpt-"


@dataclass(frozen=True, slots=True)
class FineTuningView:
    """A job in that API's words; ``fine_tuned_model`` is a name that chats accept."""

    job: JobView
    model: str
    fine_tuned_model: str | None
    training_file: str
    validation_file: str | None
    result_files: tuple[str, ...]
    hyperparameters: Hyperparameters
    suffix: str | None
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CheckpointView:
    """Weights of a job that can be asked. ``train_loss`` in nats a token."""

    id: str
    model: str
    job_id: str
    created_at: datetime
    step_number: int
    train_loss: float


class FineTuner:
    """Takes orders and tells how they stand; every method may block on disk and database."""

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactStore,
        *,
        specializer: Specializer,
        files: UploadedFiles,
        clock: Callable[[], datetime],
        base: str,
    ) -> None:
        """``base`` is the name this service's base goes by."""
        self._database, self._artifacts, self._clock, self._base = database, artifacts, clock, base
        self._specializer, self._files = specializer, files

    def create(self, order: TuningOrder, *, idempotency_key: str | None = None) -> Accepted:
        """Make the job. Raises InvalidInput with the files' lines, TooLarge, Conflict (a key of another request)."""
        raw = to_request(order, base=self._base, read=self._files.content)

        def note(uow: UnitOfWork, job_id: str) -> None:
            uow.fine_tunings.add(_row(order, job_id))

        return self._specializer.start(raw, idempotency_key=idempotency_key, beside=note)

    def get(self, job_id: str) -> FineTuningView:
        """One job; raises NotFound."""
        with self._database.session(read_only=True) as uow:
            return _views(uow, [uow.jobs.get(job_id)], self._clock())[0]

    def list(
        self, *, after: str | None = None, limit: int = 20, labels: Mapping[str, str] | None = None
    ) -> Page[FineTuningView]:
        """The newest first. ``labels`` that a job must have; None: only jobs without any. NotFound for ``after``."""
        with self._database.session(read_only=True) as uow:
            ids = uow.fine_tunings.job_ids(
                after=after,
                limit=limit + 1,
                is_wanted=lambda there: not there if labels is None else labels.items() <= there.items(),
            )
            views = _views(uow, uow.jobs.of(ids[:limit]), self._clock())
        return Page(views, ids[limit - 1] if len(ids) > limit else None)

    def events(self, job_id: str, *, after: str | None = None, limit: int = 20) -> Page[EventView]:
        """The newest first; ``after`` is the id (``ftevent-17``) of the last one seen. Raises NotFound."""
        before = None if after is None else _event_number(after)
        with self._database.session(read_only=True) as uow:
            uow.jobs.get(job_id)
            events = uow.fine_tunings.events(job_id, before=before, limit=limit + 1)
        views = tuple(event_view(event) for event in events[:limit])
        return Page(views, f"{EVENT_PREFIX}{views[-1].id}" if len(events) > limit else None)

    def checkpoints(self, job_id: str, *, after: str | None = None) -> tuple[CheckpointView, ...]:
        """The expert, once there is one: of all weights a job makes only its version has a name.

        Raises NotFound for the job, and for a checkpoint ``after`` that is none of its.
        """
        found = self._checkpoints(job_id)
        if after is None:
            return found
        if after not in [checkpoint.id for checkpoint in found]:
            raise NotFound(f"job {job_id} has no checkpoint {after!r}", param="after")
        return ()

    def _checkpoints(self, job_id: str) -> tuple[CheckpointView, ...]:
        with self._database.session(read_only=True) as uow:
            job = uow.jobs.get(job_id)
            if job.adapter_id is None or job.finished_at is None:
                return ()
            adapter = uow.adapters.get(job.adapter_id)
        try:
            folder = self._artifacts.open(adapter.artifact_digest, kind=ADAPTER).folder
        except NotFound:
            return ()
        report = next(from_row(TrainingReport, row) for row in read_rows(folder / REPORT))
        id, steps, loss = f"{CHECKPOINT_PREFIX}{adapter.id}", report.num_steps, report.last_loss
        return (CheckpointView(id, adapter.name, job_id, job.finished_at, steps, loss),)


def _row(order: TuningOrder, job_id: str) -> FineTuning:
    return FineTuning(
        job_id=job_id,
        training_file=order.training_file,
        validation_file=order.validation_file,
        model=order.model,
        request=to_row(order),
        labels=dict(order.labels),
    )


def _views(uow: UnitOfWork, jobs: Sequence[Job], now: datetime) -> tuple[FineTuningView, ...]:
    """By as many queries as one job takes."""
    models = uow.adapters.names({job.adapter_id for job in jobs if job.adapter_id})
    orders = uow.fine_tunings.of([job.id for job in jobs])
    return tuple(
        _view(view, job, orders.get(job.id), models.get(job.adapter_id or ""))
        for view, job in zip(job_views(uow, jobs, now), jobs, strict=True)
    )


def _view(view: JobView, job: Job, order: FineTuning | None, model: str | None) -> FineTuningView:
    has_succeeded = job.status is JobStatus.SUCCEEDED
    evaluation_file = set_file_id(job.evaluation_set_id) if job.evaluation_set_id else None
    asked = order.request if order else {}
    return FineTuningView(
        job=view,
        model=order.model if order else job.base,
        fine_tuned_model=model if has_succeeded else None,
        training_file=order.training_file if order else set_file_id(job.seed_set_id),
        validation_file=order.validation_file if order else evaluation_file,
        result_files=result_file_ids(job.id) if has_succeeded else (),
        hyperparameters=told(Recipe.model_validate(job.recipe), asked.get("hyperparameters") or {}),
        suffix=asked.get("suffix") if order else job.domain,
        labels=dict(order.labels) if order else {},
    )


def _event_number(event_id: str) -> int:
    match = re.fullmatch(rf"{EVENT_PREFIX}([0-9]{{1,18}})", event_id)
    if match is None:
        raise InvalidInput([Problem("after", f"{event_id!r} is no event's id", source="query")])
    return int(match[1])
