"""Real databases for the tests: SQLite in a temporary folder and, if one answers, a throw-away PostgreSQL database."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from app.models import Base
from app.storage.database import Database
from tests.blank import lay_tables
from tests.servers import POSTGRES
from tests.storage.samples import with_sample

BACKENDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.service)]


@contextmanager
def throw_away_postgres() -> Iterator[str]:
    """URL of a new database on the test server, dropped at the end; without a server the test is skipped."""
    name = f"selfspec_test_{uuid.uuid4().hex[:12]}"
    server = create_engine(
        POSTGRES.url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3}
    )
    try:
        with server.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{name}"'))
    except OperationalError:
        POSTGRES.give_up()
    try:
        yield make_url(POSTGRES.url).set(database=name).render_as_string(hide_password=False)
    finally:
        with server.connect() as connection:
            connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Database]:
    """One migrated PostgreSQL database for all tests that clean up behind themselves."""
    with throw_away_postgres() as url, Database(url) as database:
        database.upgrade()
        yield database


@pytest.fixture(params=BACKENDS)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database without tables; SQLite's path has a blank and a percent sign in it."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/with blank 100%/selfspec.db"
        return
    with throw_away_postgres() as url:
        yield url


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A migrated database with one domain and one seed set in it, on each backend."""
    if request.param == "sqlite":
        lay_tables(tmp_path / "selfspec.db")
        with Database(f"sqlite:///{tmp_path}/selfspec.db") as made:
            yield with_sample(made)
        return
    shared: Database = request.getfixturevalue("postgres")
    yield with_sample(shared)
    _forget_rows(shared.url)


def _forget_rows(url: str) -> None:
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(Base.metadata.tables)} CASCADE"))
