"""Named queries of events: a job's story, in the order it was told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models import Event, EventLevel


class EventRepository:
    """Events of the unit of work's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(
        self,
        job_id: str,
        type: str,
        message: str,
        *,
        now: datetime,
        level: EventLevel = EventLevel.INFO,
        stage: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Event:
        """Tell one thing. ``type`` is for programs (``stage_started``), ``message`` for people."""
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
        return event

    def list(self, job_id: str, *, after: int = 0, limit: int = 100) -> Sequence[Event]:
        """At most ``limit`` events, oldest first, whose id is greater than ``after``."""
        query = select(Event).where(Event.job_id == job_id, Event.id > after)
        return self._session.scalars(query.order_by(Event.id).limit(limit)).all()
