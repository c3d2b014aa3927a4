"""Runs one job, stage by stage, and publishes what it made. Called in the job's own process.

A stage whose artifact is there is not run again. Every write to the database first renews the lease: a process that
lost it (taken over, cancelled) can commit nothing more, and its drafts are another's. No transaction is open while the
model works.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from app.core.errors import Fault, InvalidInput, NotFound, SelfspecError, StageFailed
from app.core.event_types import EventType
from app.core.ports import Engine
from app.core.records import Comparison
from app.core.states import JobStatus, StageStatus, WaitsFor
from app.models import EventLevel, Metric
from app.pipeline.adapter import REPORT, TEMPLATE
from app.pipeline.bench import COMPARISONS, Stage
from app.pipeline.gate import Verdict
from app.pipeline.rows import from_row, to_row
from app.pipeline.stages import walk
from app.services.interruptions import what_interrupts
from app.services.job_bench import JobBench, Order, Surroundings, adapter_id
from app.services.job_order import find_champion, find_off_domain, read_order
from app.services.lease import Held, Lease, LeaseLost, tell_cancelled
from app.services.passages import SMALL_CORPUS_PASSAGES, retriever_of
from app.services.throughput import record_start
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
        small_corpus_passages: int = SMALL_CORPUS_PASSAGES,
        age_seconds: Callable[[], float] | None = None,
    ) -> None:
        """``age_seconds``: of this process, if it was started for this job alone."""
        self._lease, self._database, self._artifacts = lease, database, artifacts
        self._engine, self._clock = engine, clock
        self._small_corpus, self._age_seconds = small_corpus_passages, age_seconds
        self._made: dict[str, Artifact] = {}  # what the stages made, by name; those skipped are not there
        self._kinds: dict[str, str] = {}  # of every stage, by name
        self._only_adapter = ""  # the expert's stage where there is nothing to choose

    def run(self) -> None:
        """Walk the stages, publish, end the job. A failure ends it too.

        LeaseLost and Held are raised, and so is what interrupts a job (see ``what_interrupts``): it goes on later.
        """
        try:
            self._begin()
            order, around = self._read_order()
            stages = walk(order.recipe, has_labelled=bool(order.labelled))
            self._kinds = {stage.name: stage.kind for stage in stages}
            self._only_adapter = next(name for name in stages[-2].reads if self._kinds[name] == "adapter")
            for stage in stages:
                if (artifact := self._finished(stage) or self._run_stage(stage, order, around)) is not None:
                    self._made[stage.name] = artifact
            self._publish(order)
        except (LeaseLost, Held):
            raise
        except Exception as error:
            if what_interrupts(error) is not None:
                raise
            self._fail(error)
            log.exception("job %s failed", self._lease.job_id)

    def _begin(self) -> None:
        with self._writing():  # the drafts are the next owner's if this is no longer it
            pass
        self._artifacts.adopt(self._lease.job_id, attempt=self._lease.attempt)

    def _read_order(self) -> tuple[Order, Surroundings]:
        with self._database.session(read_only=True) as uow:
            job = uow.jobs.get(self._lease.job_id)
            order = read_order(uow, job, self._artifacts)
        around = Surroundings(
            champion=lambda: find_champion(self._database, self._artifacts, order.domain),
            off_domain=lambda: find_off_domain(self._database, self._artifacts, order),
            retriever=retriever_of(self._database, self._artifacts, order.recipe.corpus, small=self._small_corpus),
        )
        return order, around

    def _finished(self, stage: Stage) -> Artifact | None:
        """What an earlier attempt made of this stage."""
        with self._database.session(read_only=True) as uow:
            run = uow.stage_runs.get(self._lease.job_id, stage.name)
        if run.status is not StageStatus.SUCCEEDED or run.artifact_digest is None:
            return None
        try:
            return self._artifacts.open(run.artifact_digest, kind=stage.kind)
        except NotFound:
            log.warning("the %s artifact of job %s is gone; it is made again", stage.name, self._lease.job_id)
            return None

    def _run_stage(self, stage: Stage, order: Order, around: Surroundings) -> Artifact | None:
        """What the stage makes; None if it is not needed."""
        job_id, attempt = self._lease.job_id, self._lease.attempt
        bench = JobBench(
            order,
            stage,
            folder=self._artifacts.draft(job_id, stage.name, attempt=attempt),
            checkpoints=self._artifacts.draft(job_id, f"{stage.name}.checkpoints", attempt=attempt),
            made=self._made,
            kinds=self._kinds,
            engine=self._engine,
            around=around,
            writing=self._writing,
            clock=self._clock,
            pause_point=self._pause_point,
        )
        with _failures_name(stage):
            self._pause_point()
            if not stage.is_needed(bench):
                self._skip(stage)
                return None
            with self._writing() as uow:
                run = uow.stage_runs.start(job_id, stage.name, now=self._clock())
                uow.events.add(job_id, "stage_started", stage.name, now=self._clock(), stage=stage.name)
            self._wait_ready()
            bench.begin(run)
            try:
                stage.work(bench)
            except StageFailed as failure:
                if failure.is_worth_keeping:
                    self._keep(stage, order, bench)
                raise
            return self._commit(stage, order, bench)

    def _wait_ready(self) -> None:
        """The first time, write down how long this process took until its base was there."""
        base = self._engine.wait_ready()
        if self._age_seconds is not None:
            with self._writing() as uow:
                now, seconds = self._clock(), self._age_seconds()
                record_start(uow, self._lease.job_id, base=base, seconds=seconds, now=now)
            self._age_seconds = None

    def _skip(self, stage: Stage) -> None:
        with self._writing() as uow:
            uow.stage_runs.skip(self._lease.job_id, stage.name, now=self._clock())
            told = f"{stage.name} is not needed"
            uow.events.add(self._lease.job_id, "stage_skipped", told, now=self._clock(), stage=stage.name)

    def _keep(self, stage: Stage, order: Order, bench: JobBench) -> None:
        """Make what a failed stage leaves an artifact of its own kind, so that nobody takes it for the product."""
        artifact = self._make_artifact(f"{stage.kind}-unfinished", stage, order, bench)
        with self._writing() as uow:
            now = self._clock()
            uow.artifacts.record(artifact, now=now, job_id=self._lease.job_id, stage=stage.name)
            data = {"artifact": artifact.digest, "kind": artifact.kind, "folder": str(artifact.folder)}
            told = f"what {stage.name} made before it failed is kept in {artifact.folder}"
            uow.events.add(self._lease.job_id, "work_kept", told, now=now, stage=stage.name, data=data)

    def _make_artifact(self, kind: str, stage: Stage, order: Order, bench: JobBench) -> Artifact:
        bench.keep_lease()
        parents = [self._made[name].digest for name in stage.reads if name in self._made]
        recipe = order.recipe.model_dump(mode="json", exclude={"review"})  # who looked at it made nothing
        return self._artifacts.commit(bench.folder, kind=kind, recipe=recipe, parents=parents or order.parents)

    def _commit(self, stage: Stage, order: Order, bench: JobBench) -> Artifact:
        job_id = self._lease.job_id
        artifact = self._make_artifact(stage.kind, stage, order, bench)
        shutil.rmtree(bench.checkpoints, ignore_errors=True)
        with self._writing() as uow:
            now = self._clock()
            uow.artifacts.record(artifact, now=now, job_id=job_id, stage=stage.name)
            bench.finish(uow)
            uow.stage_runs.finish(job_id, stage.name, now=now, artifact_digest=artifact.digest)
            uow.jobs.forget_deaths(job_id)
            data = {"artifact": artifact.digest}
            uow.events.add(job_id, "stage_succeeded", stage.name, now=now, stage=stage.name, data=data)
            if is_for_review := order.recipe.review and stage.kind == "dataset":
                told = f"look at the rows of {stage.name}, change or delete some, then resume the job"
                self._hold(uow, WaitsFor.REVIEW, "review_wanted", told)
        if is_for_review:
            raise Held(job_id, WaitsFor.REVIEW)
        return artifact

    def _pause_point(self) -> None:
        """Where nothing is lost by stopping: what is made is on disk. Raises Held if somebody asked for a pause."""
        with self._writing() as uow:
            if not uow.jobs.get(self._lease.job_id).pause_requested:
                return
            self._hold(uow, WaitsFor.RESUME, "job_paused", "paused on request; what is made stays")
        raise Held(self._lease.job_id, WaitsFor.RESUME)

    def _hold(self, uow: UnitOfWork, waits_for: WaitsFor, type: EventType, told: str) -> None:
        """Or end it, if that was asked for too: of what waits in the queue nobody would."""
        job_id, now = self._lease.job_id, self._clock()
        if uow.jobs.get(job_id).cancel_requested:
            uow.jobs.move(job_id, JobStatus.CANCELLED, now=now, attempt=self._lease.attempt)
            tell_cancelled(uow, self._artifacts, job_id, now=now)
            return
        uow.stage_runs.pause(job_id)
        uow.jobs.move(job_id, JobStatus.QUEUED, now=now, attempt=self._lease.attempt, waits_for=waits_for)
        uow.events.add(job_id, type, told, now=now)

    def _publish(self, order: Order) -> None:
        """Version, metrics, champion and the job's end in one transaction."""
        weights, base = self._expert(), self._engine.wait_ready()
        attachment = self._engine.attach(adapter_id(weights), weights.folder)
        verdict = from_row(Verdict, next(self._made["gate"].rows()))
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
            adapter.decision, adapter.reason = verdict.decision, verdict.reason
            uow.metrics.replace(adapter.id, job_id=job_id, metrics=self._metrics(adapter.id))
            if verdict.decision == "promote":
                reason = f"gate: {verdict.reason}"
                uow.domains.set_champion(order.domain, adapter.id, now=now, reason=reason, job_id=job_id)
            told = f"{adapter.name} is {'served' if verdict.decision == 'promote' else 'not served'}"
            uow.events.add(job_id, "job_succeeded", told, now=now, data={"adapter": adapter.id})
            uow.jobs.move(job_id, JobStatus.SUCCEEDED, now=now, attempt=self._lease.attempt, adapter_id=adapter.id)
            self._artifacts.discard(job_id)  # while nobody can see it ended: a kill after that would leave them

    def _expert(self) -> Artifact:
        """The adapter that the job is about."""
        if "choice" in self._made:
            return self._made[next(self._made["choice"].rows())["stage"]]
        return self._made[self._only_adapter]

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
            self._artifacts.discard(job_id)

    @contextmanager
    def _writing(self) -> Iterator[UnitOfWork]:
        """A transaction that holds only while the lease does, and renews it."""
        lease, now = self._lease, self._clock()
        with self._database.session() as uow:
            if not uow.jobs.heartbeat(lease.job_id, owner=lease.owner, attempt=lease.attempt, now=now):
                raise LeaseLost(f"job {lease.job_id} is no longer {lease.owner}'s")
            yield uow
            uow.commit()


@contextmanager
def _failures_name(stage: Stage) -> Iterator[None]:
    """A stage's failure says which stage it was and keeps the cause."""
    try:
        yield
    except (LeaseLost, Held, StageFailed):
        raise
    except SelfspecError as error:
        fault = Fault.USER if isinstance(error, InvalidInput) else Fault.SERVICE
        raise StageFailed(stage.name, error.message, fault=fault, param=error.param) from error
    except Exception as error:
        raise StageFailed(stage.name, f"{type(error).__name__}: {error}") from error
