"""Webhook deliveries: there with their event or not at all, and sent by one process at a time."""

from __future__ import annotations

from datetime import timedelta

from app.models import WebhookDelivery
from app.storage.database import Database
from tests.storage.samples import NOW, at_once, store_job

UNTIL = NOW + timedelta(seconds=60)


def put_out(database: Database, *, times: int = 1) -> str:
    job_id = store_job(database, webhook_url="https://example.com/hook")
    with database.session() as uow:
        for _ in range(times):
            uow.events.add(job_id, "job_paused", "paused", now=NOW)
        uow.commit()
    return job_id


def listed(database: Database, job_id: str) -> list[WebhookDelivery]:
    with database.session(read_only=True) as uow:
        return list(uow.webhooks.list(job_id))


def claim(database: Database, *, now: timedelta = timedelta(0), limit: int = 20) -> list[WebhookDelivery]:
    with database.session() as uow:
        taken = list(uow.webhooks.claim(now=NOW + now, until=UNTIL + now, limit=limit))
        uow.commit()
    return taken


def test_put_out_with_its_event_or_not_at_all(database: Database) -> None:
    job_id = store_job(database, webhook_url="https://example.com/hook")
    with database.session() as uow:
        uow.events.add(job_id, "job_cancelled", "cancelled", now=NOW)
    assert listed(database, job_id) == []
    with database.session() as uow:
        uow.events.add(job_id, "training_step", "a detail that no webhook tells", now=NOW)
        event = uow.events.add(job_id, "job_cancelled", "cancelled", now=NOW)
        uow.commit()
    (one,) = listed(database, job_id)
    assert (one.type, one.due_at, one.payload["data"]["event"]) == ("fine_tuning.job.cancelled", NOW, event.id)


def test_of_many_senders_one_has_each(database: Database) -> None:
    job_id = put_out(database, times=12)
    taken = at_once(lambda _: claim(database, limit=5), times=4)
    ids = [one.id for some in taken for one in some]
    assert len(ids) == len(set(ids))
    while some := claim(database, limit=5):
        ids += [one.id for one in some]
    assert sorted(ids) == sorted(one.id for one in listed(database, job_id))
    assert {one.tries for one in listed(database, job_id)} == {1}


def test_whoever_was_too_slow_can_tell_no_outcome(database: Database) -> None:
    """Its claim ran out and another sender made the next try."""
    job_id = put_out(database)
    (slow,) = claim(database)
    (quick,) = claim(database, now=timedelta(seconds=60))
    with database.session() as uow:
        assert not uow.webhooks.end(slow, error="too late")
        assert uow.webhooks.end(quick, delivered_at=UNTIL)
        uow.commit()
    (one,) = listed(database, job_id)
    assert (one.delivered_at, one.last_error, one.due_at, one.tries) == (UNTIL, None, None, 2)
