"""What a person is told where a server of the service tier is missing."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests import servers
from tests.servers import POSTGRES, RABBITMQ, REDIS, REQUIRE


@pytest.fixture(autouse=True)
def only_redis_answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(REQUIRE, raising=False)
    monkeypatch.setenv(POSTGRES.variable, "postgresql+psycopg://me:secret@127.0.0.1:1/none")
    monkeypatch.setenv(RABBITMQ.variable, "amqp://me:secret@127.0.0.1:2//")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv(REDIS.variable, f"redis://127.0.0.1:{listener.getsockname()[1]}")
        yield


def test_one_line_names_what_is_away() -> None:
    line = servers.report()
    assert line == "service tier: PostgreSQL (127.0.0.1:1), RabbitMQ (127.0.0.1:2) away; tests that need it are skipped"


def test_a_missing_server_skips_a_test_without_showing_a_password() -> None:
    with pytest.raises(pytest.skip.Exception, match=r"no PostgreSQL answers at 127\.0\.0\.1:1") as skipped:
        POSTGRES.need()
    assert "secret" not in str(skipped.value)
    REDIS.need()


def test_a_missing_server_fails_a_test_where_servers_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRE, "1")
    with pytest.raises(pytest.fail.Exception, match="RabbitMQ"):
        RABBITMQ.need()
    assert servers.report().endswith("tests that need it fail")
