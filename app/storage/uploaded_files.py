"""Named queries of uploaded files. The contents are artifacts. A file whose time is over is not there any more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, or_, select, tuple_
from sqlalchemy.orm import Session

from app.core.errors import NotFound
from app.models import UploadedFile


class UploadedFileRepository:
    """Uploaded files of the unit of work's transaction. Every ``now`` is an aware datetime."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, file: UploadedFile) -> UploadedFile:
        """Store a new file's row."""
        self._session.add(file)
        self._session.flush()
        return file

    def get(self, file_id: str, *, now: datetime) -> UploadedFile:
        """One file; raises NotFound."""
        file = self._session.scalar(select(UploadedFile).where(UploadedFile.id == file_id, _lasts(now)))
        if file is None:
            raise NotFound(f"there is no file {file_id!r}; POST /v1/files makes one", param="file_id")
        return file

    def list(
        self,
        *,
        now: datetime,
        after: str | None = None,
        limit: int = 20,
        purpose: str | None = None,
        oldest_first: bool = False,
    ) -> Sequence[UploadedFile]:
        """At most ``limit`` files from behind the file ``after`` (NotFound if there is none)."""
        place = tuple_(UploadedFile.created_at, UploadedFile.id)
        query = select(UploadedFile).where(_lasts(now)).limit(limit)
        if purpose is not None:
            query = query.where(UploadedFile.purpose == purpose)
        if after is not None:
            last = self.get(after, now=now)
            there = (last.created_at, last.id)
            query = query.where(place > there if oldest_first else place < there)
        columns = (UploadedFile.created_at, UploadedFile.id)
        order = columns if oldest_first else tuple(column.desc() for column in columns)
        return self._session.scalars(query.order_by(*order)).all()

    def delete(self, file: UploadedFile) -> None:
        """Forget the row; the content is the artifact store's."""
        self._session.delete(file)
        self._session.flush()


def _lasts(now: datetime) -> ColumnElement[bool]:
    return or_(UploadedFile.expires_at.is_(None), UploadedFile.expires_at > now)
