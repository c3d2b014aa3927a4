"""Brokers that a test has for itself: a Redis number, a RabbitMQ queue; nothing of theirs is left afterwards."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.exceptions import OperationalError

from app.storage.job_queue import make_celery
from tests.servers import RABBITMQ, REDIS

_NUMBERS = range(15, 0, -1)
_CLAIM, _CLAIM_SECONDS = "selfspec-tests", 900  # marks a Redis number as taken


@dataclass(frozen=True, slots=True)
class Broker:
    """``host`` and ``port`` are the server's own; ``url_at`` gives its URL at another port of this machine."""

    queue: str
    host: str
    port: int
    url_at: Callable[[str, int], str]
    forget_all: Callable[[], None]

    @property
    def url(self) -> str:
        return self.url_at(self.host, self.port)


@contextmanager
def own_redis() -> Iterator[Broker]:
    """The first empty Redis number."""
    REDIS.need()
    host, port = REDIS.address
    number = next((number for number in _NUMBERS if _take(number)), None)
    if number is None:
        pytest.fail(f"no number of the Redis at {REDIS.place} is empty")
    with redis.Redis(host, port, number) as client:
        try:
            yield Broker(
                "selfspec", host, port, lambda host, port: f"redis://{host}:{port}/{number}", lambda: _flush(client)
            )
        finally:
            client.flushdb()


def _take(number: int) -> bool:
    with redis.Redis(*REDIS.address, number) as client:
        return client.dbsize() == 0 and bool(client.set(_CLAIM, "1", nx=True, ex=_CLAIM_SECONDS))


def _flush(client: Any) -> None:
    """The number stays taken."""
    with client.pipeline(transaction=True) as both:
        both.flushdb().set(_CLAIM, "1", ex=_CLAIM_SECONDS).execute()


@contextmanager
def own_rabbitmq() -> Iterator[Broker]:
    """A queue of its own: the server's other queues are somebody's."""
    RABBITMQ.need()
    (host, port), queue = RABBITMQ.address, f"selfspec-test-{uuid.uuid4().hex[:12]}"
    with make_celery(RABBITMQ.url, Path(), queue=queue) as celery, _channel(celery) as channel:
        try:
            url = RABBITMQ.url.replace(RABBITMQ.place, "{}:{}")
            yield Broker(queue, host, port, url.format, lambda: channel.queue_purge(queue))
        finally:
            channel.queue_delete(queue)
            channel.exchange_delete(queue)


@contextmanager
def _channel(celery: Any) -> Iterator[Any]:
    try:
        with celery.connection_for_write() as connection, connection.channel() as channel:
            yield channel
    except OperationalError:
        RABBITMQ.give_up()


BROKERS = {"redis": own_redis, "rabbitmq": own_rabbitmq}
