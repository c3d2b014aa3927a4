"""What the service stands on: SQLite and a folder, or a PostgreSQL database and a Redis number made for one run."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psycopg
import redis
from psycopg import sql
from sqlalchemy import make_url

from app.settings import Settings
from tests.chaos.plan import Act
from tests.servers import POSTGRES, REDIS

_CONNECT_SECONDS = 3
_REDIS_NUMBERS = range(15, 0, -1)


class Unavailable(Exception):
    """The stack cannot be had on this machine; says why in one line."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Settings of a service, and the troubles that only its servers can make."""

    name: str
    settings: Mapping[str, str]
    flush: Callable[[], None]  # forget every message
    cut: Callable[[], None] | None = None  # end every connection to the database

    @property
    def acts(self) -> frozenset[Act]:
        return frozenset(act for act in Act if act is not Act.CUT or self.cut is not None)


@contextmanager
def sqlite(folder: Path) -> Iterator[Stack]:
    """Nothing but files."""
    broker = Settings(data_dir=folder).broker_dir

    def flush() -> None:
        for message in broker.glob("*"):
            message.unlink(missing_ok=True)

    yield Stack("sqlite", {}, flush)


@contextmanager
def postgres(folder: Path) -> Iterator[Stack]:
    """A database of its own and the first empty Redis number; both are gone afterwards. Raises Unavailable."""
    broker, name = _free_redis(), f"selfspec_chaos_{uuid.uuid4().hex[:12]}"
    _admin("CREATE DATABASE {}", name)
    url = make_url(POSTGRES.url).set(database=name).render_as_string(hide_password=False)

    def flush() -> None:
        with redis.Redis.from_url(broker) as client:
            client.flushdb()

    def cut() -> None:
        with _connect() as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    try:
        yield Stack("postgres-redis", {"database_url": url, "broker_url": broker}, flush, cut)
    finally:
        with suppress(redis.RedisError):
            flush()
        _admin("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


STACKS = {"sqlite": sqlite, "postgres-redis": postgres}


def _free_redis() -> str:
    """URL of a database number that holds nothing."""
    try:
        for number in _REDIS_NUMBERS:
            url = f"{REDIS.url.rstrip('/')}/{number}"
            with redis.Redis.from_url(url, socket_connect_timeout=_CONNECT_SECONDS) as client:
                if client.dbsize() == 0:
                    return url
    except redis.RedisError as error:
        raise Unavailable(f"Redis does not answer at {REDIS.place}: {error}") from error
    raise Unavailable(f"no database number of Redis at {REDIS.place} is empty")


def _connect() -> psycopg.Connection[tuple[object, ...]]:
    url = make_url(POSTGRES.url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(url, autocommit=True, connect_timeout=_CONNECT_SECONDS)


def _admin(statement: LiteralString, name: str) -> None:
    try:
        with _connect() as connection:
            connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
    except psycopg.OperationalError as error:
        told = str(error).splitlines()[0]
        raise Unavailable(f"PostgreSQL does not answer at {POSTGRES.place}: {told}") from error
