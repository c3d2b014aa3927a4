"""Named queries of row edits: what people changed in a dataset that its job holds for review.

One row of a dataset has one edit at most. Whoever writes holds the job's row (``jobs.get(…, for_update=True)``), so
that no edit comes after the dataset was let go.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, insert, null, select
from sqlalchemy.orm import Session

from app.models import RowEdit


class RowEditRepository:
    """Row edits of the unit of work's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def put(self, job_id: str, stage: str, index: int, row: Mapping[str, Any] | None, *, now: datetime) -> None:
        """The row is to be learned with these texts instead; None: not at all. An earlier edit of it is replaced."""
        self.remove(job_id, stage, index)
        values = {"job_id": job_id, "stage": stage, "index": index, "created_at": now}
        self._session.execute(insert(RowEdit).values(**values, row=null() if row is None else dict(row)))

    def remove(self, job_id: str, stage: str, index: int) -> None:
        """The row is as it was made again."""
        of_row = and_(_of(job_id, stage), RowEdit.index == index)
        self._session.execute(delete(RowEdit).where(of_row).execution_options(synchronize_session=False))

    def list(
        self, job_id: str, stage: str, *, first: int = 0, limit: int | None = None
    ) -> dict[int, dict[str, Any] | None]:
        """The edits by row, in order, of the ``limit`` rows from ``first`` on (None: of all from there)."""
        query = select(RowEdit.index, RowEdit.row).where(_of(job_id, stage), RowEdit.index >= first)
        if limit is not None:
            query = query.where(RowEdit.index < first + limit)
        return dict(self._session.execute(query.order_by(RowEdit.index)).all())

    def count(self, job_id: str, stage: str) -> tuple[int, int]:
        """How many rows have other texts, and how many are left out."""
        query = select(func.count(), func.count(RowEdit.row)).where(_of(job_id, stage))
        total, changed = self._session.execute(query).one()
        return changed, total - changed


def _of(job_id: str, stage: str) -> ColumnElement[bool]:
    return and_(RowEdit.job_id == job_id, RowEdit.stage == stage)
