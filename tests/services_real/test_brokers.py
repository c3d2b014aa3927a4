"""The job queue on real brokers: what is sent arrives, and one that is away or hangs is said to be."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from kombu.exceptions import KombuError

from app.core.errors import NotReady
from app.storage.job_queue import JobQueue, make_celery
from tests.services_real.brokers import BROKERS, Broker
from tests.services_real.proxy import Proxy

pytestmark = pytest.mark.service

PATIENCE_SECONDS = 60  # then it hangs with the broker


@pytest.fixture(params=sorted(BROKERS))
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    with BROKERS[request.param]() as own:
        yield own


def waiting(broker: Broker) -> int:
    """How many messages lie in the queue."""
    with make_celery(broker.url, Path(), queue=broker.queue) as celery, celery.connection() as connection:
        return int(connection.SimpleQueue(broker.queue).qsize())


def queue_behind(proxy: Proxy, broker: Broker) -> JobQueue:
    return JobQueue(make_celery(broker.url_at("127.0.0.1", proxy.port), Path(), queue=broker.queue))


def test_a_broker_that_was_emptied_takes_messages_as_before(broker: Broker) -> None:
    """Redis forgets the queue itself with its messages."""
    with closing(JobQueue(make_celery(broker.url, Path(), queue=broker.queue))) as queue:
        queue.check()
        for job_id in ("job-1", "job-2"):
            queue.send(job_id)
        assert waiting(broker) == 2
        broker.forget_all()
        queue.send("job-3")
        assert waiting(broker) == 1


def test_it_says_when_its_broker_is_away_and_works_when_it_is_back(broker: Broker) -> None:
    with Proxy(broker.host, broker.port) as proxy, closing(queue_behind(proxy, broker)) as queue:
        queue.send("job-1")
        proxy.cut()
        for ask in (queue.check, lambda: queue.send("job-2")):
            with pytest.raises(NotReady, match="the broker does not answer"):
                ask()
        proxy.mend()
        queue.check()
        queue.send("job-3")
        assert waiting(broker) == 2


def test_a_restart_of_the_broker_between_two_messages_is_not_noticed(broker: Broker) -> None:
    """The connection it keeps is dead; the message goes over a new one."""
    with Proxy(broker.host, broker.port) as proxy, closing(queue_behind(proxy, broker)) as queue:
        queue.send("job-1")
        assert proxy.cut() > 0
        proxy.mend()
        queue.send("job-2")
        assert waiting(broker) == 2


@pytest.mark.parametrize("was_used", [False, True])
def test_a_broker_that_takes_everything_and_says_nothing_is_given_up(broker: Broker, was_used: bool) -> None:
    """A request waits until a message is sent, so this must end."""
    with (
        Proxy(broker.host, broker.port) as proxy,
        closing(queue_behind(proxy, broker)) as queue,
        ThreadPoolExecutor(1) as thread,
    ):
        if was_used:
            queue.send("job-1")
        proxy.stall()
        try:
            for ask in (lambda: queue.send("job-2"), queue.check):
                with pytest.raises(NotReady, match="the broker does not answer"):
                    thread.submit(ask).result(PATIENCE_SECONDS)
        finally:
            proxy.mend()


def test_what_beat_sends_gives_up_too(broker: Broker) -> None:
    """Else a broker that hangs for a moment would end a worker's sweeps for good."""
    with Proxy(broker.host, broker.port) as proxy, ThreadPoolExecutor(1) as thread:
        url = broker.url_at("127.0.0.1", proxy.port)
        with make_celery(url, Path(), queue=broker.queue) as celery:
            [entry] = celery.conf.beat_schedule.values()
            send = partial(celery.send_task, entry["task"], **entry["options"])
            send()
            proxy.stall()
            try:
                sending = thread.submit(send)
                assert sending in futures.wait([sending], PATIENCE_SECONDS).done
                assert isinstance(sending.exception(), (OSError, KombuError))
            finally:
                proxy.mend()
