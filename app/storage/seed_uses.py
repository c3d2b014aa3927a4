"""Named queries of seed uses: which jobs a seed was sent to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from app.models import Job, SeedUse


class SeedUseRepository:
    """Seed uses of the unit of work's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, job_id: str, seed_ids: Iterable[str]) -> None:
        """Note that these seeds were sent to a job; the job must be there, and its seeds not noted yet."""
        rows = [{"seed_id": seed_id, "job_id": job_id} for seed_id in seed_ids]
        if rows:
            self._session.execute(insert(SeedUse), rows)

    def jobs(self, seed_id: str) -> Sequence[Job]:
        """The jobs that a seed was sent to, the oldest first; none if it is not known."""
        query = select(Job).join(SeedUse, SeedUse.job_id == Job.id).where(SeedUse.seed_id == seed_id)
        return self._session.scalars(query.order_by(Job.created_at, Job.id)).all()
