"""What PostgreSQL is asked to do about a process that stands still (suspended, or cut off) inside a transaction.

Found by the chaos run: whoever held a job's row like this kept every other worker from taking the job over, for ever.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import make_url, text

from app.core.errors import DatabaseAway
from app.storage.database import Database
from app.storage.jobs import Claim
from tests.storage.conftest import throw_away_postgres
from tests.storage.samples import LATER, LEASE_SECONDS, NOW, store_job, with_sample

pytestmark = pytest.mark.service

LIMIT = "idle_in_transaction_session_timeout"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with throw_away_postgres() as made, Database(made) as database:
        database.upgrade()
        with_sample(database)
        yield made


def test_no_connection_may_stand_still_inside_a_transaction_for_ever(url: str) -> None:
    with Database(url) as database, database.session(read_only=True) as uow:
        told = uow._session.scalar(text(f"SHOW {LIMIT}"))
    assert told == "30s"


def test_the_next_worker_takes_over_from_one_that_stands_still_inside_a_transaction(url: str) -> None:
    impatient = make_url(url).update_query_dict({"options": f"-c {LIMIT}=50"}).render_as_string(hide_password=False)
    with Database(url) as database, Database(impatient) as frozen:
        job_id = store_job(database)
        with database.session() as uow:
            uow.jobs.claim(job_id, owner="a", now=NOW, lease_seconds=LEASE_SECONDS)
            uow.commit()
        with pytest.raises(DatabaseAway), frozen.session() as held:
            assert held.jobs.heartbeat(job_id, owner="a", attempt=1, now=NOW)  # the row is locked
            with database.session() as uow:
                taken = uow.jobs.claim(job_id, owner="b", now=LATER, lease_seconds=LEASE_SECONDS)
                assert taken == Claim(attempt=2, is_takeover=True)
                uow.commit()
            held.commit()
