"""Named queries of events: a job's story, in the order it was told.

Ids of one job's events grow in the order of commits: whoever tells holds the job's row until the end of its
transaction. So a reader who has seen an id will never find a smaller one that is new.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core.event_types import EventType
from app.core.states import JobStatus
from app.models import Event, EventLevel, Job
from app.storage.webhooks import put_out

_HEADS_AT_ONCE = 500  # jobs a query; databases bound the number of its parameters


@dataclass(frozen=True, slots=True)
class Head:
    """How far a job's story goes at one moment; ``last_id`` is 0 where nothing was told."""

    job_id: str
    status: JobStatus
    last_id: int


class EventRepository:
    """Events of the unit of work's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(
        self,
        job_id: str,
        type: EventType,
        message: str,
        *,
        now: datetime,
        level: EventLevel = EventLevel.INFO,
        stage: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Event:
        """Tell one thing, and the job's webhook if it is to know. ``message`` is for people.

        The job's row stays locked until the transaction ends; another that only refers to it need not wait.
        """
        locked = select(Job.domain, Job.webhook_url).where(Job.id == job_id).with_for_update(key_share=True)
        domain, url = self._session.execute(locked).one()
        event = Event(
            job_id=job_id,
            created_at=now,
            type=type,
            message=message,
            level=level,
            stage=stage,
            data=dict(data or {}),
        )
        self._session.add(event)
        self._session.flush()
        put_out(self._session, event, domain=domain, url=url)
        return event

    def list(self, job_id: str, *, after: int = 0, limit: int = 100) -> Sequence[Event]:
        """At most ``limit`` events, oldest first, whose id is greater than ``after``."""
        query = select(Event).where(Event.job_id == job_id, Event.id > after)
        return self._session.scalars(query.order_by(Event.id).limit(limit)).all()

    def heads(self, job_ids: Collection[str]) -> dict[str, Head]:
        """How far the stories of many jobs go, cheaply; a job that is gone is not in it."""
        ids, found = sorted(job_ids), dict[str, Head]()
        last = select(func.coalesce(func.max(Event.id), 0)).where(Event.job_id == Job.id).scalar_subquery()
        for start in range(0, len(ids), _HEADS_AT_ONCE):
            some = select(Job.id, Job.status, last).where(Job.id.in_(ids[start : start + _HEADS_AT_ONCE]))
            found |= {id: Head(id, status, last_id) for id, status, last_id in self._session.execute(some)}
        return found
