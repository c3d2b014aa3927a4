"""The service on each pair of servers that a person can choose by URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.services_real.brokers import BROKERS
from tests.services_real.site import Site
from tests.storage.conftest import throw_away_postgres

STACKS = ("postgres-redis", "postgres-rabbitmq", "sqlite-redis")


@pytest.fixture(scope="module", params=STACKS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A service without a worker, one for all tests of a module."""
    database, broker = request.param.split("-")
    folder = tmp_path_factory.mktemp(request.param)
    with (
        BROKERS[broker]() as own,
        _database(database, str(folder)) as url,
        Site(folder, database_url=url, broker_url=own.url, queue=own.queue) as running,
    ):
        yield running


@contextmanager
def _database(kind: str, folder: str) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder}/selfspec.db"
        return
    with throw_away_postgres() as url:
        yield url
