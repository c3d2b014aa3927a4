"""Named queries of the worker processes that said they live."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.models import Worker


class WorkerRepository:
    """Workers of the unit of work's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def see(self, worker: Worker) -> None:
        """Enter a worker, or what it says now in place of what it said before."""
        self._session.merge(worker)
        self._session.flush()

    def forget(self, worker_id: str) -> None:
        """It ended; an unknown one is ignored."""
        self._session.execute(delete(Worker).where(Worker.id == worker_id))

    def forget_silent(self, *, since: datetime) -> None:
        """Drop the rows of workers that were killed long ago."""
        self._session.execute(delete(Worker).where(Worker.seen_at < since))

    def list(self) -> Sequence[Worker]:
        """All, the one seen last first."""
        return self._session.scalars(select(Worker).order_by(Worker.seen_at.desc(), Worker.id)).all()
