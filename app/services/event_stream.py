"""What the followers of jobs are given: how far each story goes, and the pages that they have not seen.

Knows no event loop and no HTTP; every method is one short transaction and may block on the database.
"""

from __future__ import annotations

from collections.abc import Collection

from app.core.errors import NotFound
from app.services.jobs import event_view
from app.services.views import EventView
from app.storage.database import Database
from app.storage.events import Head

__all__ = ["EventFeed", "Head"]


class EventFeed:
    """Reads for any number of followers at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def head(self, job_id: str) -> Head:
        """How far one job's story goes; raises NotFound."""
        with self._database.session(read_only=True) as uow:
            head = uow.events.heads([job_id]).get(job_id)
        if head is None:
            raise NotFound(f"there is no job {job_id!r}", param="job_id")
        return head

    def heads(self, job_ids: Collection[str]) -> dict[str, Head]:
        """How far the stories go, in one query; a job that is gone is not in it."""
        with self._database.session(read_only=True) as uow:
            return uow.events.heads(job_ids)

    def page(self, job_id: str, *, after: int, limit: int) -> list[EventView]:
        """At most ``limit`` events, oldest first, behind the event ``after``."""
        with self._database.session(read_only=True) as uow:
            return [event_view(event) for event in uow.events.list(job_id, after=after, limit=limit)]
