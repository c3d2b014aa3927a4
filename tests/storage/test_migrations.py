"""Migrations on each backend: there, back and there again, with rows in the tables, and no drift from the models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import inspect

from app.models import Base
from app.storage.database import Database, alembic_config, migrating
from tests.storage.samples import DOMAIN, NOW, add_adapter, at_once, new_job, with_sample

ROOT = Path(__file__).parents[2]


def tables_of(url: str) -> set[str]:
    with migrating(url) as connection:
        return set(inspect(connection).get_table_names()) - {"alembic_version"}


def fill(database: Database) -> None:
    """Rows in tables that point at each other."""
    with with_sample(database).session() as uow:
        uow.jobs.add(new_job())
        adapter = add_adapter(uow, digest="1" * 64)
        uow.domains.set_champion(DOMAIN, adapter.id, now=NOW, reason="gate: a test", job_id="job-1")
        uow.jobs.get("job-1").adapter_id = adapter.id
        uow.commit()


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
