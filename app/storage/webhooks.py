"""Named queries of webhook deliveries: what is put out with an event, who sends it, and how that went.

A delivery is written in the transaction of the event it tells, so neither can be without the other. Knows nothing of
HTTP and of signatures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session

from app.models import Event, WebhookDelivery

WEBHOOK_TYPES: Mapping[str, str] = {  # of which events, and what they are called there
    "job_succeeded": "fine_tuning.job.succeeded",
    "job_failed": "fine_tuning.job.failed",
    "job_cancelled": "fine_tuning.job.cancelled",
    "job_paused": "selfspec.job.paused",
    "review_wanted": "selfspec.job.review_wanted",
}


def put_out(session: Session, event: Event, *, domain: str, url: str | None) -> None:
    """Have ``url`` told of a stored event, if there is one and the event is of the kind that is told."""
    type = WEBHOOK_TYPES.get(event.type)
    if url is None or type is None:
        return
    id = f"evt-{event.job_id.removeprefix('job-')}-{event.id}"  # the job's random part: unique over databases
    session.add(
        WebhookDelivery(
            id=id,
            job_id=event.job_id,
            type=type,
            url=url,
            payload=_payload(id, type, event, domain),
            created_at=event.created_at,
            due_at=event.created_at,
        )
    )
    session.flush()


def _payload(id: str, type: str, event: Event, domain: str) -> dict[str, Any]:
    """As OpenAI's webhooks write it; ``data`` begins with the job's id and says more."""
    data = {"id": event.job_id, "domain": domain, "event": event.id, "message": event.message, "detail": event.data}
    return {"id": id, "object": "event", "created_at": int(event.created_at.timestamp()), "type": type, "data": data}


class WebhookRepository:
    """Deliveries of the unit of work's transaction. Several processes may send: ``claim`` decides who."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def list(self, job_id: str) -> Sequence[WebhookDelivery]:
        """All of a job, in the order in which they were put out."""
        query = select(WebhookDelivery).where(WebhookDelivery.job_id == job_id)
        return self._session.scalars(query.order_by(WebhookDelivery.created_at, WebhookDelivery.id)).all()

    def num_waiting(self) -> int:
        """How many are still to be sent."""
        return self._count(WebhookDelivery.due_at.is_not(None))

    def num_over(self, *, before: datetime) -> int:
        """How many ``forget`` would drop."""
        return self._count(*_over(before))

    def forget(self, *, before: datetime) -> int:
        """Drop those that were put out before then and are over; returns how many."""
        dropped = delete(WebhookDelivery).where(*_over(before)).returning(WebhookDelivery.id)
        return len(self._session.scalars(dropped).all())

    def is_any_due(self, *, now: datetime) -> bool:
        """Whether ``claim`` would find something; writes nothing."""
        due = select(WebhookDelivery.id).where(WebhookDelivery.due_at <= now).limit(1)
        return self._session.scalar(due) is not None

    def claim(self, *, now: datetime, until: datetime, limit: int) -> Sequence[WebhookDelivery]:
        """Take at most ``limit`` that are due, the longest overdue first; each is one more try of it.

        They are nobody else's ``until`` then; if the outcome is not told by then, they are due again.
        """
        due = select(WebhookDelivery.id, WebhookDelivery.due_at).where(WebhookDelivery.due_at <= now)
        found = self._session.execute(due.order_by(WebhookDelivery.due_at, WebhookDelivery.id).limit(limit)).all()
        taken = (self._take(id, due_at, until) for id, due_at in found)
        return [delivery for delivery in taken if delivery is not None]

    def _take(self, id: str, due_at: datetime | None, until: datetime) -> WebhookDelivery | None:
        still = (WebhookDelivery.id == id, WebhookDelivery.due_at == due_at)
        values = {"due_at": until, "tries": WebhookDelivery.tries + 1}
        taken = update(WebhookDelivery).where(*still).values(**values).returning(WebhookDelivery)
        return self._session.scalar(taken.execution_options(synchronize_session=False, populate_existing=True))

    def end(
        self,
        delivery: WebhookDelivery,
        *,
        delivered_at: datetime | None = None,
        error: str | None = None,
        due_at: datetime | None = None,
    ) -> bool:
        """Tell the outcome of a claimed try; ``due_at`` None: there will be no other. False: the claim had run out."""
        still = (WebhookDelivery.id == delivery.id, WebhookDelivery.due_at == delivery.due_at)
        values = {"delivered_at": delivered_at, "last_error": error, "due_at": due_at}
        ended = update(WebhookDelivery).where(*still).values(**values).returning(WebhookDelivery.id)
        return self._session.scalar(ended.execution_options(synchronize_session=False)) is not None

    def _count(self, *conditions: ColumnElement[bool]) -> int:
        return self._session.scalar(select(func.count()).select_from(WebhookDelivery).where(*conditions)) or 0


def _over(before: datetime) -> tuple[ColumnElement[bool], ...]:
    return WebhookDelivery.due_at.is_(None), WebhookDelivery.created_at < before
