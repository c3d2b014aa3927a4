"""Runs one job, stage by stage, and publishes what it made. Called in the job's own process.

A stage whose artifact is there is not run again. Every write to the database first renews the lease: a process that
lost it (taken over, cancelled) can commit nothing more. No transaction is open while the model works.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from app.core.errors import Fault, InvalidInput, NotFound, SelfspecError, StageFailed
from app.core.ports import Engine
from app.core.recipe import Recipe
from app.core.records import Comparison
from app.core.states import JobStatus, StageStatus
from app.models import EventLevel, Metric
from app.pipeline.gate import Verdict
from app.pipeline.holdout import split_seeds
from app.pipeline.rows import from_row, to_row
from app.pipeline.stages import COMPARISONS, REPORT, TEMPLATE, WALK, Stage
from app.services.job_bench import JobBench, Order, adapter_id
from app.services.lease import Lease, LeaseLost
from app.services.seed_sets import load_seeds
from app.storage.artifacts import Artifact, ArtifactStore, read_rows
from app.storage.database import Database, UnitOfWork
from app.storage.jobs import Failure

log = logging.getLogger(__name__)


class JobRunner:
    """The use case "work on this job until it ends", under one lease."""

    def __init__(
        self,
        lease: Lease,
        *,
        database: Database,
        artifacts: ArtifactStore,
        engine: Engine,
        clock: Callable[[], datetime],
    ) -> None:
        self._lease, self._database, self._artifacts = lease, database, artifacts
        self._engine, self._clock = engine, clock
        self._made: dict[str, Artifact] = {}  # what the stages made, by stage

    def run(self) -> None:
        """Walk the stages, publish, end the job. A failure ends it too; LeaseLost is raised."""
        try:
            order = self._read_order()
            for stage in WALK:
                self._made[stage.name] = self._finished(stage) or self._run_stage(stage, order)
            self._publish(order)
        except LeaseLost:
            raise
        except Exception as error:
            log.exception("job %s failed", self._lease.job_id)
            self._fail(error)
        self._artifacts.discard(self._lease.job_id)

    def _read_order(self) -> Order:
        with self._database.session(read_only=True) as uow:
            job = uow.jobs.get(self._lease.job_id)
            sets = [uow.seed_sets.get(name) for name in (job.seed_set_id, job.evaluation_set_id) if name]
            description = uow.domains.get(job.domain).description or ""
        recipe = Recipe.model_validate(job.recipe)
        digests = tuple(found.artifact_digest for found in sets)
        seeds, *rest = [load_seeds(self._artifacts, digest) for digest in digests]
        evaluation = rest[0] if rest else []
        split = split_seeds(seeds, evaluation, fraction=recipe.holdout_fraction, seed=recipe.seed)
        return Order(job.id, job.domain, description, recipe, split, digests)

    def _finished(self, stage: Stage) -> Artifact | None:
        """What an earlier attempt made of this stage."""
        with self._database.session(read_only=True) as uow:
            run = uow.stage_runs.get(self._lease.job_id, stage.name)
        if run.status is not StageStatus.SUCCEEDED or run.artifact_digest is None:
            return None
        try:
            return self._artifacts.open(run.artifact_digest, kind=stage.name)
        except NotFound:
            log.warning("the %s artifact of job %s is gone; it is made again", stage.name, self._lease.job_id)
            return None

    def _run_stage(self, stage: Stage, order: Order) -> Artifact:
        job_id = self._lease.job_id
        with self._writing() as uow:
            uow.stage_runs.start(job_id, stage.name, now=self._clock())
            uow.events.add(job_id, "stage_started", stage.name, now=self._clock(), stage=stage.name)
        bench = JobBench(
            order,
            stage.name,
            folder=self._artifacts.draft(job_id, stage.name),
            made=self._made,
            engine=self._engine,
            writing=self._writing,
            clock=self._clock,
        )
        with _failures_name(stage):
            self._engine.wait_ready()
            stage.work(bench)
            return self._commit(stage, order, bench)

    def _commit(self, stage: Stage, order: Order, bench: JobBench) -> Artifact:
        job_id = self._lease.job_id
        bench.keep_lease()
        artifact = self._artifacts.commit(
            bench.folder,
            kind=stage.name,
            recipe=order.recipe.model_dump(mode="json"),
            parents=[self._made[name].digest for name in stage.reads] or order.parents,
        )
        with self._writing() as uow:
            now = self._clock()
            uow.artifacts.record(artifact, now=now, job_id=job_id, stage=stage.name)
            uow.stage_runs.progress(job_id, stage.name, done=bench.done, total=bench.total)
            uow.stage_runs.finish(job_id, stage.name, now=now, artifact_digest=artifact.digest)
            data = {"artifact": artifact.digest}
            uow.events.add(job_id, "stage_succeeded", stage.name, now=now, stage=stage.name, data=data)
        return artifact

    def _publish(self, order: Order) -> None:
        """Version, metrics, champion and the job's end in one transaction."""
        weights, base = self._made["adapter"], self._engine.wait_ready()
        attachment = self._engine.attach(adapter_id(weights), weights.folder)
        is_promoted = from_row(Verdict, next(self._made["gate"].rows())).decision == "promote"
        report = next(read_rows(weights.folder / REPORT))
        job_id, now = self._lease.job_id, self._clock()
        with self._writing() as uow:
            adapter = uow.adapters.add(
                order.domain,
                job_id=job_id,
                artifact_digest=weights.digest,
                base=base,
                attachment=attachment,
                alpha=order.recipe.lora_alpha,
                num_parameters=report["num_parameters"],
                template=(weights.folder / TEMPLATE).read_text().strip(),
                now=now,
            )
            uow.metrics.replace(adapter.id, job_id=job_id, metrics=self._metrics(adapter.id))
            if is_promoted:
                uow.domains.set_champion(order.domain, adapter.id)
            told = f"{adapter.name} is {'served' if is_promoted else 'not served'}"
            uow.events.add(job_id, "job_succeeded", told, now=now, data={"adapter": adapter.id})
            uow.jobs.move(job_id, JobStatus.SUCCEEDED, now=now, attempt=self._lease.attempt, adapter_id=adapter.id)

    def _metrics(self, adapter: str) -> list[Metric]:
        rows = read_rows(self._made["metrics"].folder / COMPARISONS)
        return [
            Metric(adapter_id=adapter, job_id=self._lease.job_id, **to_row(from_row(Comparison, row))) for row in rows
        ]

    def _fail(self, error: Exception) -> None:
        job_id, failure, now = self._lease.job_id, Failure.of(error), self._clock()
        data = {"code": failure.code, "fault": failure.fault}
        with self._writing() as uow:
            uow.stage_runs.fail(job_id, now=now)
            uow.events.add(job_id, "job_failed", failure.message, now=now, level=EventLevel.ERROR, data=data)
            uow.jobs.move(job_id, JobStatus.FAILED, now=now, attempt=self._lease.attempt, failure=failure)

    @contextmanager
    def _writing(self) -> Iterator[UnitOfWork]:
        """A transaction that holds only while the lease does, and renews it."""
        lease = self._lease
        with self._database.session() as uow:
            if not uow.jobs.heartbeat(lease.job_id, owner=lease.owner, attempt=lease.attempt, now=self._clock()):
                raise LeaseLost(f"job {lease.job_id} is no longer {lease.owner}'s")
            yield uow
            uow.commit()


@contextmanager
def _failures_name(stage: Stage) -> Iterator[None]:
    """A stage's failure says which stage it was and keeps the cause."""
    try:
        yield
    except (LeaseLost, StageFailed):
        raise
    except SelfspecError as error:
        fault = Fault.USER if isinstance(error, InvalidInput) else Fault.SERVICE
        raise StageFailed(stage.name, error.message, fault=fault, param=error.param) from error
    except Exception as error:
        raise StageFailed(stage.name, f"{type(error).__name__}: {error}") from error
