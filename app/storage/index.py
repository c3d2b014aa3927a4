"""Named queries of the artifacts' index: what each job made, and from what. The files are in ``artifacts.py``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.errors import NotFound
from app.models import ArtifactEntry
from app.storage.artifacts import Artifact


class ArtifactIndex:
    """Artifact entries of the unit of work's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def record(
        self, artifact: Artifact, *, now: datetime, job_id: str | None = None, stage: str | None = None
    ) -> ArtifactEntry:
        """Enter a committed artifact. One that is there already keeps the entry of who made it first.

        One whose files had been removed is there again.
        """
        entry = ArtifactEntry(
            digest=artifact.digest,
            kind=artifact.kind,
            num_bytes=artifact.num_bytes,
            parents=list(artifact.parents),
            created_at=now,
            job_id=job_id,
            stage=stage,
        )
        there = self._session.get(ArtifactEntry, artifact.digest)
        if there is not None:
            if there.removed_at is not None:
                there.removed_at = None
                self._session.flush()
            return there
        try:
            with self._session.begin_nested():
                self._session.add(entry)
        except IntegrityError:
            return self.get(artifact.digest)
        return entry

    def get(self, digest: str) -> ArtifactEntry:
        """One entry; raises NotFound."""
        entry = self._session.get(ArtifactEntry, digest)
        if entry is None:
            raise NotFound(f"there is no artifact {digest!r}", param="digest")
        return entry

    def kinds(self) -> dict[str, str]:
        """The kind of every artifact whose files should be there, by digest."""
        query = select(ArtifactEntry.digest, ArtifactEntry.kind).where(ArtifactEntry.removed_at.is_(None))
        return {entry.digest: entry.kind for entry in self._session.execute(query)}

    def removed_adapters(self) -> dict[str, datetime]:
        """When the files of adapters were removed, by digest; those whose files are there are left out."""
        gone = (ArtifactEntry.kind == "adapter", ArtifactEntry.removed_at.is_not(None))
        rows = self._session.execute(select(ArtifactEntry.digest, ArtifactEntry.removed_at).where(*gone))
        return {digest: removed_at for digest, removed_at in rows if removed_at is not None}

    def list(self, job_id: str) -> Sequence[ArtifactEntry]:
        """What a job was the first to make, oldest first."""
        query = select(ArtifactEntry).where(ArtifactEntry.job_id == job_id)
        return self._session.scalars(query.order_by(ArtifactEntry.created_at, ArtifactEntry.digest)).all()
