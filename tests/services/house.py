"""Real database, real artifacts, all services, a clock to turn; jobs run in this process with the fake engine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from app.core.ports import Engine
from app.core.records import Completion, GenerationRequest, TrainingStep
from app.engine.fake import FakeEngine
from app.models import Event, Job, StageRun
from app.services.container import Services
from app.services.lease import Lease, LeaseService
from app.services.request_checks import RawRequest
from app.services.run_job import JobRunner
from app.services.seeds import Limits
from app.storage.artifacts import Artifact, ArtifactStore
from app.storage.database import Database
from app.storage.job_queue import JobQueue, make_celery
from tests.blank import lay_tables

BASE = "fake-base"
LEASE_SECONDS = 30.0
SEEDS = [
    {"task": task, "instruction": f"Is the {task} good?", "input": f"Firm {n} sold {n}00 ships", "output": word}
    for task in ("tone", "sense")
    for n, word in enumerate(["good", "bad", "fine", "poor", "fair"])
]
EVALUATION = [
    {"task": "tone", "instruction": "Is the tone good?", "input": f"Loss of firm {n}", "output": "bad"}
    for n in range(40)
]
SMALL_JOB: dict[str, Any] = {  # knobs of a job that is done in no time and always makes an expert
    "num_examples": 30,
    "max_prompts": 64,
    "batch_size": 64,
    "promotion": "always",
    "controls": (),
    "min_yield": 0,
    "evaluation_shots": (0,),
    "off_domain_items": 0,  # what other tests leave in the same database is none of these jobs' concern
}


class Killed(BaseException):
    """What a kill looks like from inside: nothing of ours catches it."""


class Countdown:
    """Raises Killed at the call number ``number`` (from 1; 0: never), whoever calls."""

    def __init__(self, number: int = 0) -> None:
        self.number, self.count = number, 0

    def __call__(self) -> None:
        self.count += 1
        if self.count == self.number:
            raise Killed


class MortalEngine(FakeEngine):
    """The fake engine, calling ``before`` at every request and every training step.

    It tells of no single answer, so that no wave is asked ahead: whoever calls does nothing while it works.
    """

    def __init__(self, before: Callable[[], None]) -> None:
        super().__init__(slots=1, base_name=BASE)
        self._before = before

    def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
        self._before()
        return super().generate(requests)

    def train(self, *arguments: Any, on_step: Callable[[TrainingStep], None], **options: Any) -> Any:
        def step(report: TrainingStep) -> None:
            on_step(report)
            self._before()

        return super().train(*arguments, on_step=step, **options)


class House:
    """Everything under one folder."""

    def __init__(self, folder: Path, *, base: str = BASE, database_url: str | None = None) -> None:
        self.now = datetime(2024, 1, 5, tzinfo=UTC)  # long before any process of its own can look
        path = folder / "selfspec.db"
        if database_url is None:
            lay_tables(path)
        self.database = Database(database_url or f"sqlite:///{path}")
        self.database.upgrade()
        self.artifacts = ArtifactStore(folder / "artifacts")
        self.services = Services.build(
            database=self.database,
            artifacts=self.artifacts,
            queue=JobQueue(make_celery("filesystem://", folder / "broker")),
            engine=FakeEngine(base_name=base),
            clock=self.clock,
            base=base,
            limits=Limits(max_seeds=100, max_field_chars=10_000, max_lora_rank=16),
            lease_seconds=LEASE_SECONDS,
        )
        self.leases = LeaseService(self.database, self.artifacts, clock=self.clock, lease_seconds=LEASE_SECONDS)

    def clock(self) -> datetime:
        return self.now

    def order(
        self,
        *,
        seeds: Sequence[object] = SEEDS,
        evaluation: Sequence[object] | None = EVALUATION,
        domain: str = "finance",
        **recipe: object,
    ) -> str:
        """A queued job of the quick preset with changes."""
        raw = RawRequest(domain=domain, seeds=list(seeds), evaluation=evaluation, recipe={"preset": "quick", **recipe})
        return self.services.specializer.start(raw).job_id

    def take(self, job_id: str, *, owner: str = "worker") -> Lease:
        """Its lease, from whoever had it: all leases run out first."""
        self.now += timedelta(seconds=LEASE_SECONDS + 1)
        lease = self.leases.take(job_id, owner=owner)
        assert lease is not None
        return lease

    def run(
        self,
        job_id: str,
        *,
        engine: Engine | None = None,
        clock: Callable[[], datetime] | None = None,
        lease: Lease | None = None,
    ) -> None:
        """One attempt at the job, to its end."""
        with closing(engine or FakeEngine(slots=1, base_name=BASE)) as used:
            JobRunner(
                lease or self.take(job_id),
                database=self.database,
                artifacts=self.artifacts,
                engine=used,
                clock=clock or self.clock,
            ).run()

    def job(self, job_id: str) -> Job:
        with self.database.session(read_only=True) as uow:
            return uow.jobs.get(job_id)

    def stages(self, job_id: str) -> list[StageRun]:
        with self.database.session(read_only=True) as uow:
            return list(uow.stage_runs.list(job_id))

    def events(self, job_id: str, type: str | None = None) -> list[Event]:
        with self.database.session(read_only=True) as uow:
            return [event for event in uow.events.list(job_id, limit=10_000) if type in (None, event.type)]

    def digests(self, job_id: str) -> dict[str, str | None]:
        """What each stage made."""
        return {stage.stage: stage.artifact_digest for stage in self.stages(job_id)}

    def artifact(self, job_id: str, stage: str) -> Artifact:
        digest = self.digests(job_id)[stage]
        assert digest is not None
        return self.artifacts.open(digest, kind=stage)

    def rows(self, job_id: str, stage: str) -> list[dict[str, Any]]:
        return list(self.artifact(job_id, stage).rows())

    def lose_artifacts(self) -> None:
        """An empty store, so that the next job makes everything itself."""
        shutil.rmtree(self.artifacts.root, ignore_errors=True)

    def drafts(self, job_id: str) -> list[Path]:
        """Unfinished files of a job."""
        return [path for path in (self.artifacts.root / "tmp" / job_id).rglob("*") if path.is_file()]
