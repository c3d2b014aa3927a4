"""Rows and records that the storage tests start from."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any, TypeVar

from app.core.records import Attachment, BaseInfo
from app.models import Adapter, Job, SeedSet, SetRole
from app.storage.database import Database, UnitOfWork

DOMAIN = "finance"
SEED_SET = "seeds-1"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LEASE_SECONDS = 30.0
LATER = NOW + timedelta(seconds=LEASE_SECONDS + 1)  # a lease taken at NOW has run out

BASE = BaseInfo(
    name="tiny",
    fingerprint="f" * 16,
    quantization="none",
    dtype="float32",
    device="cpu",
    context_tokens=512,
    num_parameters=1000,
)
ATTACHMENT = Attachment(adapter="a", slot=1, num_modules=14, rank=8, num_bytes=4096, probe_distance=0.25)

T = TypeVar("T")


def with_sample(database: Database) -> Database:
    """The database, with one domain and one seed set in it."""
    with database.session() as uow:
        uow.domains.get_or_add(DOMAIN, now=NOW)
        uow.seed_sets.add(
            SeedSet(
                id=SEED_SET,
                domain=DOMAIN,
                role=SetRole.SEEDS,
                digest="0" * 16,
                num_rows=90,
                artifact_digest="0" * 64,
                created_at=NOW,
            )
        )
        uow.commit()
    return database


def new_job(job_id: str = "job-1", **values: Any) -> Job:
    """A queued job, not stored yet."""
    given = {"domain": DOMAIN, "seed_set_id": SEED_SET, "created_at": NOW, **values}
    return Job(id=job_id, recipe={"preset": "quick"}, base="tiny", request_digest="r", **given)


def store_job(database: Database, job_id: str = "job-1", **values: Any) -> str:
    """Store a queued job and return its id."""
    with database.session() as uow:
        uow.jobs.add(new_job(job_id, **values))
        uow.commit()
    return job_id


def add_adapter(uow: UnitOfWork, *, digest: str, job_id: str = "job-1", domain: str = DOMAIN) -> Adapter:
    """The domain's next version, of an artifact with this digest."""
    return uow.adapters.add(
        domain,
        job_id=job_id,
        artifact_digest=digest,
        base=BASE,
        attachment=ATTACHMENT,
        alpha=16,
        num_parameters=500,
        template="{instruction}",
        now=NOW,
    )


def at_once(work: Callable[[int], T], *, times: int) -> list[T]:
    """Run ``work(0)`` … ``work(times - 1)`` in threads that start together; returns the results in order."""
    start = Barrier(times)

    def run(number: int) -> T:
        start.wait(timeout=30)
        return work(number)

    with ThreadPoolExecutor(times) as threads:
        return list(threads.map(run, range(times)))
