"""Named queries of fine-tunings: jobs as OpenAI's API tells them, and their events from the newest back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import or_, select, tuple_
from sqlalchemy.orm import Session

from app.core.errors import NotFound
from app.core.states import JobStatus
from app.models import Event, FineTuning, Job

_CHUNK = 500  # rows read at once where labels are looked at


class FineTuningRepository:
    """Fine-tunings of the unit of work's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, tuning: FineTuning) -> FineTuning:
        """Store what a job was asked for; the job must be there."""
        self._session.add(tuning)
        self._session.flush()
        return tuning

    def of(self, job_ids: Collection[str]) -> dict[str, FineTuning]:
        """What these jobs were asked for, by job; those that came by another door are left out."""
        query = select(FineTuning).where(FineTuning.job_id.in_(job_ids))
        return {tuning.job_id: tuning for tuning in self._session.scalars(query)}

    def job_ids(
        self, *, after: str | None = None, limit: int = 20, is_wanted: Callable[[Mapping[str, Any]], bool]
    ) -> Sequence[str]:
        """At most ``limit`` jobs whose labels are wanted, newest first, from behind the job ``after`` (NotFound).

        Jobs that came by another door have no labels. Labels are compared here: databases differ in what a key of a
        JSON column may hold.
        """
        query = select(Job.id, FineTuning.labels).outerjoin(FineTuning, FineTuning.job_id == Job.id)
        if after is not None:
            last = self._session.get(Job, after)
            if last is None:
                raise NotFound(f"there is no job {after!r}", param="after")
            query = query.where(tuple_(Job.created_at, Job.id) < (last.created_at, last.id))
        query = query.order_by(Job.created_at.desc(), Job.id.desc()).execution_options(yield_per=_CHUNK)
        with self._session.execute(query) as rows:  # closed: PostgreSQL keeps a cursor open for it
            return list(islice((job_id for job_id, labels in rows if is_wanted(labels or {})), limit))

    def waiting_for(self, file_id: str) -> Sequence[str]:
        """Jobs that have not ended and were given this file."""
        named = or_(FineTuning.training_file == file_id, FineTuning.validation_file == file_id)
        open_states = [status for status in JobStatus if not status.is_final]
        query = select(Job.id).join(FineTuning, FineTuning.job_id == Job.id).where(named, Job.status.in_(open_states))
        return self._session.scalars(query.order_by(Job.created_at, Job.id)).all()

    def events(self, job_id: str, *, before: int | None = None, limit: int = 20) -> Sequence[Event]:
        """At most ``limit`` events of a job, the newest first, whose id is less than ``before``."""
        query = select(Event).where(Event.job_id == job_id)
        if before is not None:
            query = query.where(Event.id < before)
        return self._session.scalars(query.order_by(Event.id.desc()).limit(limit)).all()
