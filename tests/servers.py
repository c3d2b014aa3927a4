"""The servers of the `service` tier: where they are, and what becomes of a test where one does not answer."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import urlsplit

import pytest

REQUIRE = "SELFSPEC_REQUIRE_SERVICES"  # set to 1: a server that is missing is a failure
_CONNECT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Server:
    """One server that tests may use; ``variable`` names another than the usual one on this machine."""

    name: str
    variable: str
    usual_url: str

    @property
    def url(self) -> str:
        return os.environ.get(self.variable) or self.usual_url

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or urlsplit(self.usual_url).port or 0

    @property
    def place(self) -> str:
        return "{}:{}".format(*self.address)

    def answers(self) -> bool:
        try:
            with socket.create_connection(self.address, timeout=_CONNECT_SECONDS):
                return True
        except OSError:
            return False

    def need(self) -> None:
        """Skip the test in one line, or fail it where servers are required, unless this one answers."""
        if not self.answers():
            self.give_up()

    def give_up(self) -> NoReturn:
        """What ``need`` does where it does not answer."""
        told = f"no {self.name} answers at {self.place} ({self.variable} names another)"
        if are_required():
            pytest.fail(f"{told}, and {REQUIRE} is set", pytrace=False)
        pytest.skip(told)


POSTGRES = Server("PostgreSQL", "SELFSPEC_TEST_POSTGRES_URL", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")
REDIS = Server("Redis", "SELFSPEC_TEST_REDIS_URL", "redis://127.0.0.1:6379")
RABBITMQ = Server("RabbitMQ", "SELFSPEC_TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")
ALL = (POSTGRES, REDIS, RABBITMQ)


def are_required() -> bool:
    return os.environ.get(REQUIRE, "0") not in ("", "0")


def report() -> str:
    """One line: which servers the `service` tier has, and what becomes of the tests that need another."""
    away = [f"{server.name} ({server.place})" for server in ALL if not server.answers()]
    if not away:
        return f"service tier: {', '.join(server.name for server in ALL)} answer"
    return f"service tier: {', '.join(away)} away; tests that need it {'fail' if are_required() else 'are skipped'}"
