"""What a job is to make and what it may look at beside, read from database and artifact store."""

from __future__ import annotations

from app.core.recipe import Recipe
from app.models import Job
from app.pipeline.bench import AdapterPlace, Champion
from app.pipeline.holdout import Split, split_seeds
from app.pipeline.stages import chooses
from app.services.adapters import KIND as ADAPTER_KIND
from app.services.adapters import read_template
from app.services.job_bench import Order
from app.services.seed_sets import load_seeds
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database, UnitOfWork


def read_order(uow: UnitOfWork, job: Job, artifacts: ArtifactStore) -> Order:
    """Raises NotFound if an uploaded set is gone."""
    recipe = Recipe.model_validate(job.recipe)
    names = (job.seed_set_id, job.evaluation_set_id, job.labelled_set_id)
    digests = [name and uow.seed_sets.get(name).artifact_digest for name in names]
    seeds, evaluation, labelled = (load_seeds(artifacts, digest) if digest else [] for digest in digests)
    description = uow.domains.get(job.domain).description or ""
    return Order(
        job.id,
        job.domain,
        description,
        recipe,
        split_seeds(seeds, evaluation, fraction=recipe.holdout_fraction, seed=recipe.seed, chooses=chooses(recipe)),
        parents=tuple(digest for digest in digests if digest),
        supervised=tuple(labelled),
    )


def read_split(uow: UnitOfWork, job: Job, artifacts: ArtifactStore) -> Split:
    """Which of a job's seeds are learned and which judge it; raises NotFound if a set is gone."""
    return read_order(uow, job, artifacts).split


def find_champion(database: Database, artifacts: ArtifactStore, domain: str) -> Champion | None:
    """What the domain serves now; None if it is nothing, or its files are gone."""
    with database.session(read_only=True) as uow:
        adapter = uow.domains.get(domain).champion
    if adapter is None:
        return None
    folder = artifacts.open(adapter.artifact_digest, kind=ADAPTER_KIND).folder
    return Champion(AdapterPlace(adapter.id, folder), adapter.name, read_template(adapter.template))
