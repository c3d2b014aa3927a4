"""The unit of work, what callers see when a database is away, and instants."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import text

from app.core.errors import NotFound, NotReady, SetupError
from app.storage.database import Database
from tests.storage.samples import NOW, at_once, new_job, store_job


def test_leaving_without_commit_rolls_back(database: Database) -> None:
    with database.session() as uow:
        uow.jobs.add(new_job())
    with database.session() as uow, pytest.raises(NotFound):
        uow.jobs.get("job-1")


def test_an_error_rolls_back_what_was_not_committed(database: Database) -> None:
    def fail_after_the_commit() -> None:
        with database.session() as uow:
            uow.jobs.add(new_job("job-1"))
            uow.commit()
            uow.jobs.add(new_job("job-2", created_at=NOW))
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        fail_after_the_commit()
    with database.session() as uow:
        assert [job.id for job in uow.jobs.list()] == ["job-1"]


def test_rows_stay_readable_after_the_session(database: Database) -> None:
    store_job(database)
    with database.session() as uow:
        job = uow.jobs.get("job-1")
        uow.commit()
    assert (job.domain, job.recipe, job.created_at) == ("finance", {"preset": "quick"}, NOW)


def test_a_reader_does_not_wait_for_a_writer(database: Database) -> None:
    with database.session() as writer:
        writer.jobs.add(new_job())
        with database.session(read_only=True) as reader:
            assert list(reader.jobs.list()) == []


def test_the_version_tells_of_every_commit(database: Database) -> None:
    """By whatever process: here another pool of connections. A server would have to be asked, so it tells nothing."""
    before = database.version()
    if not database.url.startswith("sqlite"):
        assert before is None
        return
    store_job(database, "job-1")
    after_own = database.version()
    with Database(database.url) as other:
        store_job(other, "job-2")
    after_another = database.version()
    assert len({before, after_own, after_another} - {None}) == 3


def test_the_version_stays_while_nothing_is_committed(database: Database) -> None:
    before = database.version()
    with database.session(read_only=True) as uow:
        uow.jobs.list()
    with database.session() as uow:
        uow.jobs.add(new_job())
        assert database.version() == before
    assert database.version() == before
    database.dispose()
    assert database.version() is None


def test_writers_that_read_first_do_not_fail_each_other(database: Database) -> None:
    """SQLite refuses at once to let a reading transaction write when another wrote in between."""

    def add_one(number: int) -> None:
        for turn in range(10):
            with database.session() as uow:
                uow.jobs.list()
                uow.jobs.add(new_job(f"job-{number}-{turn}"))
                uow.commit()

    at_once(add_one, times=6)
    with database.session() as uow:
        assert len(uow.jobs.list(limit=100)) == 60


def test_instants_come_back_in_utc(database: Database) -> None:
    tokyo = timezone(timedelta(hours=9))
    store_job(database, created_at=NOW.astimezone(tokyo))
    with database.session() as uow:
        created_at = uow.jobs.get("job-1").created_at
    assert created_at == NOW
    assert created_at.utcoffset() == timedelta(0)


def test_an_instant_without_a_zone_is_refused(database: Database) -> None:
    with database.session() as uow, pytest.raises(Exception, match="without a time zone"):
        uow.jobs.add(new_job(created_at=datetime(2026, 3, 1)))


def test_check_passes_on_a_migrated_database(database: Database) -> None:
    database.check()


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://nobody:secret@127.0.0.1:1/none", "sqlite:////proc/nowhere/selfspec.db"]
)
def test_an_unreachable_database_is_one_clear_line(url: str) -> None:
    with pytest.raises((NotReady, SetupError)) as refusal, Database(url) as database:
        database.check()
    assert "\n" not in refusal.value.message
    assert "secret" not in refusal.value.message


def test_a_database_without_tables_is_not_ready(tmp_path: Path) -> None:
    with Database(f"sqlite:///{tmp_path}/new.db") as database, pytest.raises(NotReady, match="no such table"):
        database.check()


def test_a_full_disk_is_a_setup_error(tmp_path: Path) -> None:
    with Database(f"sqlite:///{tmp_path}/full.db") as database:
        database.upgrade()
        with pytest.raises(SetupError, match="full"), database.session() as uow:
            uow._session.execute(text("PRAGMA max_page_count=1"))  # SQLite's own way to have no room left
            uow.domains.get_or_add("finance", now=NOW, description="x" * 1_000_000)


@pytest.mark.parametrize("url", ["nonsense", "postgresql+nodriver://user:secret@host/name"])
def test_a_url_that_is_none_is_told_without_its_password(url: str) -> None:
    with pytest.raises(SetupError) as caught:
        Database(url)
    assert "SELFSPEC_DATABASE_URL" in caught.value.message
    assert "secret" not in caught.value.message
