"""What requests may name because it was sent before: domains' newest sets, corpora."""

from __future__ import annotations

from app.core.errors import NotFound, Problem
from app.core.recipe import Recipe
from app.services.corpora import corpus_problems
from app.services.seed_sets import read_seeds
from app.services.several_domains import StoredDomain
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database


class Library:
    """Looks things up in short transactions."""

    def __init__(self, database: Database, artifacts: ArtifactStore) -> None:
        self._database, self._artifacts = database, artifacts

    def find_domain(self, name: str) -> StoredDomain | None:
        """What the newest job of a domain was given; None if there is no job, or its seeds are gone."""
        with self._database.session(read_only=True) as uow:
            jobs = uow.jobs.list(domain=name, limit=1)
            if not jobs:
                return None
            description = uow.domains.get(name).description or ""
            ids = (jobs[0].seed_set_id, jobs[0].evaluation_set_id)
            digests = [uow.seed_sets.get(set_id).artifact_digest for set_id in ids if set_id]
        try:
            seeds, *evaluation = (tuple(read_seeds(self._artifacts, digest)) for digest in digests)
        except NotFound:
            return None
        return StoredDomain(description, seeds, evaluation[0] if evaluation else ())

    def corpus_problems(self, recipe: Recipe) -> list[Problem]:
        """Why the recipe's corpus cannot be used."""
        with self._database.session(read_only=True) as uow:
            return corpus_problems(uow, recipe)
