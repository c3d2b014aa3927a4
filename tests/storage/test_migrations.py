"""Migrations on each backend: there, back and there again, with rows in the tables, and no drift from the models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import JSON, Column, Connection, Enum, func, insert, inspect, select, text

from app.core.states import JobStatus, WaitsFor
from app.models import Base
from app.models.base import UtcDateTime
from app.storage.database import Database, alembic_config, migrating
from app.storage.jobs import Claim
from tests.storage.samples import DOMAIN, NOW, add_adapter, at_once, new_job, with_sample

ROOT = Path(__file__).parents[2]


def tables_of(url: str) -> set[str]:
    with migrating(url) as connection:
        return set(inspect(connection).get_table_names()) - {"alembic_version"}


def fill(database: Database) -> None:
    """A row in every table, some pointing at each other; the jobs are ``job-1``, held for review, and ``job-2``."""
    with with_sample(database).session() as uow:
        uow.jobs.add(new_job(waits_for=WaitsFor.REVIEW, deaths=2, webhook_url="https://example.org/hook"))
        uow.jobs.add(new_job("job-2", status=JobStatus.SUCCEEDED))
        uow.stage_runs.ensure("job-1", ["instructions"])
        adapter = add_adapter(uow, digest="1" * 64)
        uow.domains.set_champion(DOMAIN, adapter.id, now=NOW, reason="gate: a test", job_id="job-1")
        uow.jobs.get("job-1").adapter_id = adapter.id
        uow.commit()
    with migrating(database.url) as connection:
        for table in Base.metadata.tables.values():
            if connection.scalar(select(func.count()).select_from(table)) == 0:
                connection.execute(insert(table), {column.name: some_value(column, connection) for column in table.c})


def some_value(column: Column[Any], connection: Connection) -> object:
    """Anything that fits: what a foreign key points at is there."""
    for key in column.foreign_keys:
        return connection.scalar(select(key.column).limit(1))
    if isinstance(column.type, Enum):
        return column.type.enums[0]
    if isinstance(column.type, JSON):
        return {"some": ["thing", 1, None]}
    if isinstance(column.type, UtcDateTime):
        return NOW
    return {str: "some", int: 2**31 - 1, float: 0.5, bool: True}[column.type.python_type]


def counts(url: str) -> dict[str, int]:
    """How many rows each table has, as the tables are there now."""
    with migrating(url) as connection:
        names = set(inspect(connection).get_table_names()) - {"alembic_version"}
        return {name: connection.scalar(text(f'SELECT count(*) FROM "{name}"')) or 0 for name in names}


def test_up_down_up(empty_url: str) -> None:
    with Database(empty_url) as database:
        database.upgrade()
        fill(database)
    with migrating(empty_url) as connection:
        command.downgrade(alembic_config(connection), "base")
    assert tables_of(empty_url) == set()
    with Database(empty_url) as database:
        database.upgrade()
        fill(database)
        database.upgrade()
    assert tables_of(empty_url) == set(Base.metadata.tables)


def test_what_is_served_is_the_first_promotion(empty_url: str) -> None:
    """A domain whose champion is older than the table of promotions has a way back to it too."""
    with Database(empty_url) as database:
        database.upgrade()
        fill(database)
    with migrating(empty_url) as connection:
        command.downgrade(alembic_config(connection), "0001")
    with Database(empty_url) as database:
        database.upgrade()
        with database.session(read_only=True) as uow:
            [(promotion, adapter)] = uow.promotions.list(DOMAIN)
    assert adapter is not None
    assert (adapter.name, promotion.created_at, promotion.job_id) == ("finance@v1", NOW, "job-1")


def test_jobs_from_before_have_neither_paused_nor_died(empty_url: str) -> None:
    """From 0002 with rows in place: nothing is lost, and what is new says nothing of what there was."""
    with Database(empty_url) as database:
        database.upgrade()
        fill(database)
    with migrating(empty_url) as connection:
        command.downgrade(alembic_config(connection), "0002")
    before = counts(empty_url)
    assert set(before.values()) & {0} == set()
    with Database(empty_url) as database:
        database.upgrade()
        after = counts(empty_url)
        assert {name: after[name] for name in before} == before
        assert {after[name] for name in after.keys() - before.keys()} == {0}
        with database.session() as uow:
            held, ended = uow.jobs.get("job-1"), uow.jobs.get("job-2")
            assert (held.waits_for, held.pause_requested, held.deaths, held.webhook_url) == (None, False, 0, None)
            assert (held.status, ended.status) == (JobStatus.QUEUED, JobStatus.SUCCEEDED)
            assert [run.worked_seconds for run in uow.stage_runs.list("job-1")] == [0.0]
            assert list(uow.jobs.queued_ids()) == ["job-1"]  # who had paused is simply the next
            assert uow.jobs.claim("job-1", owner="worker", now=NOW, lease_seconds=30) == Claim(1, is_takeover=False)


def test_models_and_migrations_agree(empty_url: str) -> None:
    with Database(empty_url) as database:
        database.upgrade()
    with migrating(empty_url) as connection:
        command.check(alembic_config(connection))


def test_processes_that_start_together_may_all_migrate(empty_url: str) -> None:
    def upgrade(_: int) -> None:
        with Database(empty_url) as database:
            database.upgrade()
            database.check()

    at_once(upgrade, times=4)


def test_a_failed_migration_leaves_nothing(empty_url: str) -> None:
    def fail_after_all() -> None:
        with migrating(empty_url) as connection:
            command.upgrade(alembic_config(connection), "head")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail_after_all()
    assert tables_of(empty_url) == set()


@pytest.mark.service
def test_the_alembic_command_works_from_the_repository(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/selfspec.db"
    subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=ROOT,
        env={**os.environ, "SELFSPEC_DATABASE_URL": url},
        check=True,
        timeout=60,
    )
    assert tables_of(url) == set(Base.metadata.tables)
