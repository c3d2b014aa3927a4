"""Named queries for retention: all that the database knows about what is stored, read at once as plain records.

Knows nothing about what may go: that is decided in ``app/services/retention_plan.py``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import or_, select, text, update
from sqlalchemy.orm import Session

from app.core.states import JobStatus
from app.models import (
    Adapter,
    ArtifactEntry,
    Corpus,
    Domain,
    Job,
    SeedSet,
    StageRun,
    UploadedFile,
)
from app.storage.promotions import PromotionRepository

_LOCK_WAIT_MS = 200  # less than PostgreSQL takes to call two waiting transactions a deadlock
_IN_ONE_QUERY = 500


@dataclass(frozen=True, slots=True)
class KnownArtifact:
    """An entry of the index."""

    digest: str
    kind: str
    parents: tuple[str, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class KnownJob:
    """A job. ``ended_at``: when it ended; of one that has not, when it was made."""

    id: str
    status: JobStatus
    ended_at: datetime
    adapter_id: str | None


@dataclass(frozen=True, slots=True)
class KnownAdapter:
    """A version of an expert."""

    id: str
    domain: str
    version: int
    job_id: str
    digest: str

    @property
    def name(self) -> str:
        return f"{self.domain}@v{self.version}"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the database says at one moment."""

    artifacts: Mapping[str, KnownArtifact]  # by digest
    jobs: Mapping[str, KnownJob]  # by id
    made: Mapping[str, frozenset[str]]  # digests by the job that made or used them
    adapters: Mapping[str, KnownAdapter]  # by id
    champions: frozenset[str]  # ids of adapters that are served
    earlier: frozenset[str]  # ids of adapters that a rollback can reach
    sent: frozenset[str]  # digests of what users sent and some row still names


class RetentionRepository:
    """What retention asks and changes in the unit of work's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def hold_still(self) -> None:
        """Until the transaction ends nobody changes a job or what a domain serves. Keep it very short.

        Raises NotReady (when the unit of work ends) if others were at it for too long: try again. SQLite does so
        anyway.
        """
        if self._session.get_bind().dialect.name == "postgresql":
            self._session.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_WAIT_MS}ms'"))
            self._session.execute(text("LOCK TABLE jobs, domains IN SHARE MODE"))

    def facts(self, *, now: datetime) -> Facts:
        """All of it; some ten thousand rows a second."""
        champions = self._session.execute(select(Domain.name, Domain.champion_id)).all()
        promotions = PromotionRepository(self._session)
        earlier = {id for domain, _ in champions for id in promotions.standing(domain) if id is not None}
        return Facts(
            artifacts=self._artifacts(),
            jobs=self._jobs(),
            made=self._made(),
            adapters=self._adapters(),
            champions=frozenset(id for _, id in champions if id is not None),
            earlier=frozenset(earlier),
            sent=self._sent(now),
        )

    def note_removed(self, digests: Collection[str], *, now: datetime) -> None:
        """Write down that these artifacts' files are gone."""
        wanted = list(digests)
        for start in range(0, len(wanted), _IN_ONE_QUERY):
            some = ArtifactEntry.digest.in_(wanted[start : start + _IN_ONE_QUERY])
            there = ArtifactEntry.removed_at.is_(None)
            self._session.execute(update(ArtifactEntry).where(some, there).values(removed_at=now))

    def _artifacts(self) -> dict[str, KnownArtifact]:
        entry = ArtifactEntry
        rows = self._session.execute(select(entry.digest, entry.kind, entry.parents, entry.created_at))
        return {digest: KnownArtifact(digest, kind, tuple(parents), at) for digest, kind, parents, at in rows}

    def _jobs(self) -> dict[str, KnownJob]:
        rows = self._session.execute(select(Job.id, Job.status, Job.finished_at, Job.created_at, Job.adapter_id))
        return {id: KnownJob(id, status, ended or made, adapter) for id, status, ended, made, adapter in rows}

    def _made(self) -> dict[str, frozenset[str]]:
        """By the stages, and by the index, which also has what a failed stage left and what was made anew."""
        found: dict[str, set[str]] = defaultdict(set)
        stages = select(StageRun.job_id, StageRun.artifact_digest).where(StageRun.artifact_digest.is_not(None))
        entries = select(ArtifactEntry.job_id, ArtifactEntry.digest).where(ArtifactEntry.job_id.is_not(None))
        for query in (stages, entries):
            for job_id, digest in self._session.execute(query):
                found[job_id].add(digest)
        return {job_id: frozenset(digests) for job_id, digests in found.items()}

    def _adapters(self) -> dict[str, KnownAdapter]:
        query = select(Adapter.id, Adapter.domain, Adapter.version, Adapter.job_id, Adapter.artifact_digest)
        return {row.id: KnownAdapter(*row) for row in self._session.execute(query)}

    def _sent(self, now: datetime) -> frozenset[str]:
        lasting = or_(UploadedFile.expires_at.is_(None), UploadedFile.expires_at > now)
        queries = (
            select(SeedSet.artifact_digest),
            select(Corpus.artifact_digest),
            select(UploadedFile.artifact_digest).where(lasting),
        )
        return frozenset(digest for query in queries for digest in self._session.scalars(query))
