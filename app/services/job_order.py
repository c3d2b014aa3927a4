"""What a job is to make and what it may look at beside, read from database and artifact store."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from app.core.errors import NotFound
from app.core.recipe import Recipe
from app.core.records import Seed
from app.models import Job, SetRole
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
        labelled=tuple(labelled),
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
    try:
        folder = artifacts.open(adapter.artifact_digest, kind=ADAPTER_KIND).folder
    except NotFound:
        return None
    return Champion(AdapterPlace(adapter.id, folder), adapter.name, read_template(adapter.template))


def find_off_domain(database: Database, artifacts: ArtifactStore, order: Order) -> Mapping[str, Sequence[Seed]]:
    """Items of the newest evaluation set of each domain that the expert is not for, drawn by the recipe's seed."""
    count, learned = order.recipe.off_domain_items, {order.domain, *(seed.domain for seed in order.split.training)}
    if count == 0:
        return {}
    with database.session(read_only=True) as uow:
        sets = uow.seed_sets.newest(SetRole.EVALUATION, besides=learned)
    found = {}
    for each in sets:
        try:
            items = load_seeds(artifacts, each.artifact_digest)
        except NotFound:
            continue
        chance = random.Random(f"{order.recipe.seed}/off-domain/{each.domain}")
        places = sorted(chance.sample(range(len(items)), min(count, len(items))))
        found[each.domain] = [items[place] for place in places]
    return found
