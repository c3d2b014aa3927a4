"""Servers that go and come back while jobs run: nothing is lost, nothing runs twice, nobody has to do anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest
from sqlalchemy import make_url

from tests.services_real.brokers import BROKERS, Broker
from tests.services_real.proxy import Proxy
from tests.services_real.site import Site
from tests.storage.conftest import throw_away_postgres

pytestmark = pytest.mark.service

LONG = {"num_examples": 1000, "max_prompts": 100_000}  # some seconds


@dataclass(frozen=True)
class Town:
    """A service and the roads to its servers."""

    site: Site
    broker: Broker
    to_broker: Proxy
    to_database: Proxy
    cut_connections: Callable[[], int]

    def is_ok(self, part: str) -> bool:
        """What the API says of one of its servers."""
        return bool(self.site.ready().json()["checks"][part]["ok"])


@pytest.fixture(scope="module", params=sorted(BROKERS))
def town(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with BROKERS[request.param]() as broker, throw_away_postgres() as url:
        there = make_url(url)
        assert there.host is not None
        with Proxy(broker.host, broker.port) as to_broker, Proxy(there.host, there.port or 5432) as to_database:
            site = Site(
                tmp_path_factory.mktemp(request.param),
                database_url=there.set(host="127.0.0.1", port=to_database.port).render_as_string(hide_password=False),
                broker_url=broker.url_at("127.0.0.1", to_broker.port),
                queue=broker.queue,
                lease_seconds=5,
                heartbeat_seconds=0.5,
            )
            with site:
                yield Town(site, broker, to_broker, to_database, lambda: terminate_backends(url))


def terminate_backends(url: str) -> int:
    """End every connection to a database but this one, from the server's side; returns how many there were."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
        return connection.execute(query, [make_url(url).database]).rowcount


@pytest.fixture
def worker(town: Town) -> Iterator[None]:
    """One that runs through the test, and ends in order."""
    process = town.site.start_worker()
    yield
    assert process.poll() is None, "the worker ended by itself"
    assert town.site.stop("worker") == 0


def assert_done_once(site: Site, job_id: str) -> None:
    """Whatever happened, it succeeded, its end was told once, and its adapter answers."""
    job = site.ended(job_id)
    assert (job["status"], job["error"]) == ("succeeded", None)
    assert site.events(job_id).count("job_succeeded") == 1
    made = site.http.get(f"/adapters/{job['adapter']}").raise_for_status().json()
    answer = site.http.post("/generate", params={"adapter": made["name"]}, json={"instruction": "Good or bad?"})
    assert answer.headers["x-selfspec-adapter-id"] == made["id"] == job["adapter"]


def test_messages_that_the_broker_forgets_are_not_needed(town: Town) -> None:
    jobs = [town.site.order(domain) for domain in ("finance", "law")]
    town.broker.forget_all()
    town.site.start_worker()
    try:
        for job_id in jobs:
            assert_done_once(town.site, job_id)
            assert town.site.job(job_id)["attempt"] == 1
    finally:
        assert town.site.stop("worker") == 0


def test_the_broker_may_forget_everything_while_jobs_run(town: Town, worker: None) -> None:
    jobs = [town.site.order("finance", **LONG), town.site.order("finance")]
    town.site.at_work(jobs[0])
    town.broker.forget_all()
    for job_id in jobs:
        assert_done_once(town.site, job_id)


def test_a_job_posted_while_the_broker_is_away_waits_for_it(town: Town) -> None:
    town.to_broker.cut()
    assert not town.is_ok("broker")
    job_id = town.site.order("finance")
    assert town.site.job(job_id)["status"] == "queued"
    town.to_broker.mend()
    town.site.until(lambda: town.is_ok("broker"), "the broker is back")
    town.site.start_worker()
    try:
        assert_done_once(town.site, job_id)
    finally:
        assert town.site.stop("worker") == 0


def test_a_worker_outlives_a_restart_of_the_broker(town: Town, worker: None) -> None:
    first = town.site.order("finance", **LONG)
    town.site.at_work(first)
    assert town.to_broker.cut() > 0
    second = town.site.order("law")
    town.to_broker.mend()
    for job_id in (first, second, town.site.order("law")):
        assert_done_once(town.site, job_id)
    assert town.site.job(first)["attempt"] == 1


@pytest.mark.parametrize("goes", ["before it starts", "while it runs"])
def test_a_worker_without_a_broker_works_and_ends_in_order(town: Town, goes: str) -> None:
    """It finds jobs in the database; and SIGTERM ends it, though Celery is busy with trying to connect."""
    if goes == "before it starts":
        town.to_broker.cut()
    town.site.start_worker()
    try:
        if goes == "while it runs":
            town.site.at_work(town.site.order("finance"))
            assert town.to_broker.cut() > 0
        assert_done_once(town.site, town.site.order("finance"))
        assert town.site.stop("worker") == 0
    finally:
        town.to_broker.mend()


def test_a_broker_that_hangs_holds_nobody_up(town: Town, worker: None) -> None:
    """It takes what is sent and says nothing: a request must not wait for it for ever."""
    town.to_broker.stall()
    try:
        job_id = town.site.order("finance")
        assert town.site.job(job_id)["status"] in ("queued", "running", "succeeded")
        assert town.site.ready().status_code in (200, 503)
    finally:
        town.to_broker.mend()
    assert_done_once(town.site, job_id)


def test_connections_to_the_database_may_be_cut_at_any_time(town: Town, worker: None) -> None:
    job_id = town.site.order("finance", **LONG)
    town.site.at_work(job_id)
    assert town.cut_connections() > 0
    assert town.site.job(job_id)["id"] == job_id  # the next request finds a new connection
    town.cut_connections()
    assert_done_once(town.site, job_id)


def test_a_database_that_goes_and_comes_back_finds_all_going_on(town: Town, worker: None) -> None:
    job_id = town.site.order("finance", **LONG)
    town.site.at_work(job_id)
    assert town.to_database.cut() > 0
    assert not town.is_ok("database")
    refused = town.site.http.get(f"/jobs/{job_id}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
    assert town.site.http.get("/health").status_code == 200
    town.to_database.mend()
    town.site.until(lambda: town.site.ready().status_code == 200, "the database is back")
    assert_done_once(town.site, job_id)
