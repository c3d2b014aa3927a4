"""What a job's stages left, and which read which: the walk that its recipe gives, with the artifacts made so far."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.errors import NotFound
from app.core.recipe import Recipe
from app.core.states import WaitsFor
from app.models import Job
from app.pipeline.bench import Stage
from app.pipeline.stages import walk
from app.storage.database import UnitOfWork

DATASET = "dataset"


@dataclass(frozen=True, slots=True)
class Made:
    """The stages by name, in order: what each reads, its kind, and the digest of what it made if it is done."""

    reads: dict[str, tuple[str, ...]]
    kinds: dict[str, str]
    digests: dict[str, str]

    @classmethod
    def of(cls, uow: UnitOfWork, job: Job) -> Made:
        stages = walk_of(job)
        digests = {run.stage: run.artifact_digest for run in uow.stage_runs.list(job.id) if run.artifact_digest}
        kinds = {stage.name: stage.kind for stage in stages}
        return cls({stage.name: stage.reads for stage in stages}, kinds, digests)

    def read_by(self, stage: str, kind: str) -> str | None:
        """The stage of that kind that ``stage`` read first."""
        return next((name for name in self.reads.get(stage, ()) if self.kinds[name] == kind), None)

    def datasets(self) -> list[str]:
        """Those that are made, in order."""
        return [name for name, kind in self.kinds.items() if kind == DATASET and name in self.digests]

    def dataset_of(self, adapter_digest: str | None) -> str | None:
        """The dataset that this adapter learned; else the newest."""
        made = self.datasets()
        learned = (self.read_by(name, DATASET) for name, digest in self.digests.items() if digest == adapter_digest)
        return next((name for name in learned if name in made), made[-1] if made else None)


def walk_of(job: Job) -> tuple[Stage, ...]:
    """The stages that the job goes through, in order."""
    return walk(Recipe.model_validate(job.recipe), has_labelled=job.labelled_set_id is not None)


def find_dataset(uow: UnitOfWork, job: Job, made: Made) -> str | None:
    """The stage of the dataset that a job is about: its expert's, or the newest while there is no expert."""
    digest = uow.adapters.get(job.adapter_id).artifact_digest if job.adapter_id else None
    return made.dataset_of(digest)


def held_stage(job: Job) -> str | None:
    """The stage whose rows a job holds for review; None if it holds none."""
    return job.stage if job.waits_for is WaitsFor.REVIEW else None


def choose_dataset(uow: UnitOfWork, job: Job, made: Made, stage: str | None) -> str:
    """``stage`` if it is a dataset that is made; None: the one that a job is about. Raises NotFound."""
    datasets = made.datasets()
    if stage is not None and stage not in datasets:
        known = ", ".join(datasets) or "none yet"
        raise NotFound(f"job {job.id} has no dataset {stage!r}; there are: {known}", param="stage")
    chosen = stage or held_stage(job) or find_dataset(uow, job, made)
    if chosen is None:
        raise NotFound(f"job {job.id} has no dataset yet: it is {job.status.value}", param="job_id")
    return chosen
