"""Retention beside others on PostgreSQL: nobody moves a job while it decides, and it waits for those who do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError

from app.core.errors import DatabaseAway
from app.services.retention import Retention
from app.services.retention_plan import Policy
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database
from tests.storage.conftest import throw_away_postgres
from tests.storage.samples import new_job, with_sample

pytestmark = pytest.mark.service

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def database() -> Iterator[Database]:
    with throw_away_postgres() as url, Database(url) as made:
        made.upgrade()
        with_sample(made)
        with made.session() as uow:
            uow.jobs.add(new_job())
            uow.commit()
        yield made


def test_it_waits_for_those_who_move_a_job_and_gives_up_without_harm(database: Database, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    (store.draft("trash", "left") / "file").write_text("x")
    retention = Retention(database, store, policy=Policy(), logs_dir=tmp_path, clock=lambda: NOW)
    with database.session() as uow:
        uow.jobs.request_cancel("job-1", now=NOW)
        with pytest.raises(DatabaseAway, match="lock timeout"):
            retention.clean()
        uow.commit()
    assert retention.clean().count == 1
    assert not list(store.root.rglob("file"))


def test_nobody_moves_a_job_while_it_decides(database: Database) -> None:
    impatient = make_url(database.url).update_query_dict({"options": "-c lock_timeout=50"})
    with Database(impatient.render_as_string(hide_password=False)) as other, database.session() as deciding:
        deciding.retention.hold_still()
        with other.session() as uow:
            assert uow.jobs.get("job-1")  # readers never wait
            with pytest.raises(OperationalError, match="lock timeout"):
                uow.jobs.request_cancel("job-1", now=NOW)
