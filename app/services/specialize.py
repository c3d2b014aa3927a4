"""A specialization begins: check everything, store the seed sets and the job, send the job to a worker.

Nothing is written before the whole request has been found usable. The same idempotency key with the same content gives
the job it made the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.core.errors import Conflict
from app.core.records import Seed
from app.core.states import JobStatus
from app.models import EventLevel, Job, SeedSet, SetRole
from app.pipeline.stages import walk
from app.services.dispatch import Dispatcher
from app.services.ids import new_id
from app.services.request_checks import CheckedRequest, RawRequest, RequestChecker, check_idempotency_key
from app.services.seed_sets import store_seeds
from app.storage.artifacts import Artifact, ArtifactStore
from app.storage.database import Database, UnitOfWork


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
        *,
        checker: RequestChecker,
        dispatcher: Dispatcher,
        clock: Callable[[], datetime],
    ) -> None:
        self._database, self._artifacts = database, artifacts
        self._checker, self._dispatcher, self._clock = checker, dispatcher, clock

    def start(self, raw: RawRequest, *, idempotency_key: str | None = None) -> Accepted:
        """Check, store, send. Raises InvalidInput, TooLarge, Conflict (another base, a key of another request)."""
        key = check_idempotency_key(idempotency_key)
        request = self._checker.check(raw)
        if accepted := self._repeated(key, request.digest):
            return accepted
        try:
            job_id = self._store(request, key)
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

    def _store(self, request: CheckedRequest, key: str | None) -> str:
        """Files first, then all rows in one transaction."""
        seeds = store_seeds(self._artifacts, request.seeds)
        evaluation = store_seeds(self._artifacts, request.evaluation) if request.evaluation else None
        now = self._clock()
        with self._database.session() as uow:
            uow.domains.get_or_add(request.domain, now=now, description=request.description)
            seed_set = _add_set(uow, request, SetRole.SEEDS, request.seeds, seeds, now)
            held = None
            if evaluation is not None:
                held = _add_set(uow, request, SetRole.EVALUATION, request.evaluation, evaluation, now)
            job = uow.jobs.add(_make_job(request, key, seed_set, held, now))
            uow.stage_runs.ensure(job.id, [stage.name for stage in walk(request.recipe)])
            _tell(uow, job.id, request, now)
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


def _make_job(
    request: CheckedRequest, key: str | None, seeds: SeedSet, evaluation: SeedSet | None, now: datetime
) -> Job:
    return Job(
        id=new_id("job", now),
        domain=request.domain,
        recipe=request.recipe.model_dump(mode="json"),
        base=request.base,
        seed_set_id=seeds.id,
        evaluation_set_id=evaluation.id if evaluation else None,
        idempotency_key=key,
        request_digest=request.digest,
        status=JobStatus.VALIDATING_FILES,
        created_at=now,
    )


def _tell(uow: UnitOfWork, job_id: str, request: CheckedRequest, now: datetime) -> None:
    counts = {"seeds": len(request.seeds), "evaluation": len(request.evaluation)}
    message = f"{counts['seeds']} seeds and {counts['evaluation']} evaluation items were checked; the job is queued"
    uow.events.add(job_id, "job_queued", message, now=now, data=counts)
    if request.ignored:
        told = f"keys that are not used: {', '.join(request.ignored)}"
        uow.events.add(
            job_id, "keys_ignored", told, now=now, level=EventLevel.WARNING, data={"keys": list(request.ignored)}
        )
