"""A specialization begins: check everything, store the seed sets and the job, send the job to a worker.

Nothing is written before the whole request has been found usable. The same idempotency key with the same content gives
the job it made the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.core.errors import Conflict
from app.core.ports import Engine
from app.core.records import Seed
from app.core.states import JobStatus
from app.models import EventLevel, Job, SeedSet, SetRole
from app.pipeline.stages import walk
from app.services.dispatch import Dispatcher
from app.services.doctor import report_on
from app.services.forecast import Forecaster
from app.services.ids import new_id
from app.services.request_checks import CheckedRequest, RawRequest, RequestChecker, check_idempotency_key
from app.services.seed_report import SeedReport
from app.services.seed_sets import store_seeds
from app.storage.artifacts import Artifact, ArtifactStore
from app.storage.database import Database, UnitOfWork

_MAX_FINDINGS = 50  # told in a job's event


@dataclass(frozen=True, slots=True)
class Accepted:
    """The job, and whether an earlier request with the same key had made it."""

    job_id: str
    is_repeat: bool


class Specializer:
    """Turns requests into queued jobs."""

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactStore,
        engine: Engine,
        *,
        checker: RequestChecker,
        forecaster: Forecaster,
        dispatcher: Dispatcher,
        clock: Callable[[], datetime],
    ) -> None:
        self._database, self._artifacts, self._engine = database, artifacts, engine
        self._forecaster = forecaster
        self._checker, self._dispatcher, self._clock = checker, dispatcher, clock

    def start(
        self,
        raw: RawRequest,
        *,
        idempotency_key: str | None = None,
        beside: Callable[[UnitOfWork, str], None] | None = None,
    ) -> Accepted:
        """Check, store, send. Raises InvalidInput, TooLarge, Conflict (another base, a key of another request).

        ``beside`` may write more about the new job, whose id it is given, in the transaction that makes it.
        """
        key = check_idempotency_key(idempotency_key)
        read = self._checker.read(raw)
        request = self._checker.accept(read, base=raw.base)
        if accepted := self._repeated(key, request.digest):
            return accepted
        report = report_on(read, self._engine)
        assert read.split is not None  # it was accepted
        planned = self._forecaster.forecast(request, read.split).rows()
        try:
            job_id = self._store(request, report, planned, key, beside)
        except Conflict:  # a request with the same key was quicker
            if accepted := self._repeated(key, request.digest):
                return accepted
            raise
        self._dispatcher.send(job_id)
        return Accepted(job_id, is_repeat=False)

    def _repeated(self, key: str | None, digest: str) -> Accepted | None:
        if key is None:
            return None
        with self._database.session(read_only=True) as uow:
            job = uow.jobs.by_idempotency_key(key)
        if job is None:
            return None
        if job.request_digest != digest:
            raise Conflict(f"this Idempotency-Key made job {job.id} from another request", param="Idempotency-Key")
        return Accepted(job.id, is_repeat=True)

    def _store(
        self,
        request: CheckedRequest,
        report: SeedReport,
        planned: Mapping[str, Mapping[str, Any]],
        key: str | None,
        beside: Callable[[UnitOfWork, str], None] | None,
    ) -> str:
        """Files first, then all rows in one transaction."""
        sent = {
            SetRole.SEEDS: request.seeds,
            SetRole.EVALUATION: request.evaluation,
            SetRole.LABELLED: request.labelled,
        }
        stored = {role: store_seeds(self._artifacts, items) for role, items in sent.items() if items}
        now = self._clock()
        with self._database.session() as uow:
            uow.domains.get_or_add(request.domain, now=now, description=request.description)
            sets = {role: _add_set(uow, request, role, sent[role], stored[role], now) for role in stored}
            job = uow.jobs.add(_make_job(request, key, sets, now))
            uow.seed_uses.add(job.id, (seed.id for seed in request.seeds))
            stages = walk(request.recipe, has_labelled=bool(request.labelled))
            uow.stage_runs.ensure(job.id, [stage.name for stage in stages])
            uow.stage_runs.plan(job.id, planned)
            _tell(uow, job.id, request, report, now)
            if beside is not None:
                beside(uow, job.id)
            uow.jobs.move(job.id, JobStatus.QUEUED, now=now)
            uow.commit()
        return job.id


def _add_set(
    uow: UnitOfWork, request: CheckedRequest, role: SetRole, items: Sequence[Seed], artifact: Artifact, now: datetime
) -> SeedSet:
    uow.artifacts.record(artifact, now=now)
    return uow.seed_sets.add(
        SeedSet(
            id=new_id("set", now),
            domain=request.domain,
            role=role,
            digest=artifact.digest,
            num_rows=len(items),
            artifact_digest=artifact.digest,
            created_at=now,
        )
    )


def _make_job(request: CheckedRequest, key: str | None, sets: Mapping[SetRole, SeedSet], now: datetime) -> Job:
    ids = {role: seed_set.id for role, seed_set in sets.items()}
    return Job(
        id=new_id("job", now),
        domain=request.domain,
        recipe=request.recipe.model_dump(mode="json"),
        base=request.base,
        seed_set_id=ids[SetRole.SEEDS],
        evaluation_set_id=ids.get(SetRole.EVALUATION),
        labelled_set_id=ids.get(SetRole.LABELLED),
        idempotency_key=key,
        request_digest=request.digest,
        webhook_url=request.webhook_url,
        status=JobStatus.VALIDATING_FILES,
        created_at=now,
    )


def _tell(uow: UnitOfWork, job_id: str, request: CheckedRequest, report: SeedReport, now: datetime) -> None:
    counts = {"seeds": len(request.seeds), "evaluation": len(request.evaluation), "labelled": len(request.labelled)}
    message = f"{counts['seeds']} seeds and {counts['evaluation']} evaluation items were checked; the job is queued"
    uow.events.add(job_id, "job_queued", message, now=now, data=counts)
    examined = {
        "tasks": {task.task: task.seeds for task in report.tasks},
        "held_out": report.num_held_out,
        "findings": [
            {"severity": found.severity.value, "code": found.code, "message": found.message, "remedy": found.remedy}
            for found in report.findings[:_MAX_FINDINGS]
        ],
    }
    level = EventLevel.WARNING if report.warnings else EventLevel.INFO
    uow.events.add(job_id, "seeds_examined", report.summary, now=now, level=level, data=examined)
    if request.ignored:
        told = f"keys that are not used: {', '.join(request.ignored)}"
        uow.events.add(
            job_id, "keys_ignored", told, now=now, level=EventLevel.WARNING, data={"keys": list(request.ignored)}
        )
