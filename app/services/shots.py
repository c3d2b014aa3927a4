"""Demonstrations for a prompt: seeds that an adapter learned from, chosen the same way every time.

Only seeds of the training part: one that was held out to judge the adapter is never shown. Knows nothing about
templates or lengths.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, zip_longest

from app.core.errors import InvalidInput, NotFound, Problem
from app.core.records import Seed
from app.services.job_order import read_split
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database

_KEPT_JOBS = 64  # whose seeds stay in memory: they never change


class Demonstrations:
    """Seeds of jobs, in the order in which they are shown."""

    def __init__(self, database: Database, artifacts: ArtifactStore) -> None:
        self._database, self._artifacts = database, artifacts
        self._of_job = lru_cache(maxsize=_KEPT_JOBS)(self._load)

    def choose(self, job: str, count: int) -> tuple[Seed, ...]:
        """The first ``count`` seeds of the job's order (fewer, if it has fewer); raises InvalidInput if it has none."""
        seeds = self._of_job(job)[:count]
        if count and not seeds:
            raise InvalidInput([Problem("shots", f"the seeds of job {job} are not in the artifact store; ask for 0")])
        return seeds

    def _load(self, job_id: str) -> tuple[Seed, ...]:
        with self._database.session(read_only=True) as uow:
            job = uow.jobs.get(job_id)
            try:
                split = read_split(uow, job, self._artifacts)
            except NotFound:
                return ()
        return order(split.training, seed=job.recipe["seed"])


def order(seeds: Sequence[Seed], *, seed: int) -> tuple[Seed, ...]:
    """All seeds, one of each task in turn, so that the first few stand for all tasks alike."""
    tasks = sorted({row.task for row in seeds})
    decks = [[row for row in seeds if row.task == task] for task in tasks]
    chance = random.Random(f"{seed}/shots")
    for deck in decks:
        chance.shuffle(deck)
    return tuple(row for row in chain.from_iterable(zip_longest(*decks)) if row is not None)
