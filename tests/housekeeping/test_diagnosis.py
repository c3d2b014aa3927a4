"""The doctor: each thing that can break is broken, and its line names it and the mend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command

from app.core.states import WaitsFor
from app.engine.fake import FakeEngine
from app.services.diagnosis import BaseHere, Diagnosis, Finding, Surroundings
from app.services.worker_beat import WorkerBeat
from app.storage.database import Database, alembic_config, migrating
from app.storage.job_queue import JobQueue, make_celery
from tests.housekeeping.disks import small_disk
from tests.housekeeping.versions import owe_webhooks, version
from tests.services.house import BASE, LEASE_SECONDS, House

HERE = BaseHere(BASE, "", "", {"none": FakeEngine(base_name=BASE).wait_ready().fingerprint}, 1000)


def around(house: House) -> Surroundings:
    return Surroundings(
        folders=(house.artifacts.root,),
        min_free_bytes=1,
        lease_seconds=LEASE_SECONDS,
        heartbeat_seconds=5,
        has_webhook_secret=False,
    )


def look(
    house: House,
    *,
    database: Database | None = None,
    broker_url: str = "filesystem://",
    base: BaseHere = HERE,
    all_artifacts: bool = False,
    **changes: object,
) -> Mapping[str, list[str]]:
    """The lines of each part that is not ok, without the part's name."""
    diagnosis = Diagnosis(
        database or house.database,
        house.artifacts,
        JobQueue(make_celery(broker_url, house.artifacts.root.parent / "broker", queue="doctor")),
        around=replace(around(house), **changes),  # type: ignore[arg-type]
        find_base=lambda: base,
        clock=house.clock,
    )
    bad: dict[str, list[str]] = {}
    for finding in diagnosis.run(all_artifacts=all_artifacts):
        if finding.grade != "ok":
            bad.setdefault(finding.part, []).append(_line(finding))
    return bad


def _line(finding: Finding) -> str:
    return str(finding).replace(f" {finding.part:<11}", "", 1)


@pytest.fixture
def house(house: House) -> House:
    """With a worker that lives."""
    beat(house).beat()
    return house


def beat(house: House) -> WorkerBeat:
    return WorkerBeat(house.database, slots=1, every_seconds=5, clock=house.clock)


def test_a_service_in_order_has_nothing_to_mend(house: House) -> None:
    version(house, 1)
    beat(house).beat()
    assert look(house, all_artifacts=True) == {}


def test_a_database_that_is_away_is_told_and_the_rest_left(house: House) -> None:
    with Database("postgresql+psycopg://nobody@127.0.0.1:1/none") as away:
        bad = look(house, database=away)
    assert bad["database"][0].startswith("fail  the database does not answer: postgresql+psycopg://nobody@127.0.0.1:1")
    assert bad["database"][0].endswith("→ start it, or correct SELFSPEC_DATABASE_URL")
    assert bad["rest"] == [
        "warn  not looked at: clock, workers, jobs, artifacts, adapters, webhooks → mend the database first"
    ]


def test_migrations_that_are_missing_are_named(house: House) -> None:
    with migrating(house.database.url) as connection:
        command.downgrade(alembic_config(connection), "0001")
    assert look(house)["migrations"] == ["fail  missing: 0002, 0003 → selfspec migrate"]


def test_tables_of_a_newer_selfspec_are_told(house: House) -> None:
    with migrating(house.database.url) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    [line] = look(house)["migrations"]
    assert line.startswith("fail  the database's tables are of a newer selfspec: 9999")


def test_a_broker_that_is_away_is_told(house: House) -> None:
    [line] = look(house, broker_url="redis://127.0.0.1:1/0")["broker"]
    assert line.startswith("fail  the broker does not answer")
    assert line.endswith("→ start it, or correct SELFSPEC_BROKER_URL")


def test_no_worker_and_jobs_that_wait_for_one(house: House) -> None:
    worker = beat(house)
    worker.beat()
    job_id = house.order()
    assert look(house) == {}
    house.now += timedelta(hours=1)
    start = "→ start one: selfspec serve, or selfspec worker"
    assert look(house) == {
        "workers": [f"fail  none lives; one was last seen on 2024-01-05 at 00:00 {start}"],
        "jobs": [f"fail  1 wait since 2024-01-05 00:00 and no worker lives {start}"],
    }
    house.take(job_id)
    house.now += timedelta(hours=1)
    assert look(house)["jobs"] == [f"fail  {job_id} runs, but nobody has worked on it for long {start}"]
    beat(house).beat()
    assert "workers" not in look(house)


def test_a_worker_that_ended_in_order_is_gone(house: House) -> None:
    with house.database.session() as uow:
        for left in uow.workers.list():
            uow.workers.forget(left.id)
        uow.commit()
    worker = beat(house)
    worker.beat()
    assert look(house) == {}
    worker.end()
    assert look(house)["workers"] == ["fail  none lives → start one: selfspec serve, or selfspec worker"]


def test_a_job_that_waits_for_room_is_told(house: House) -> None:
    job_id = house.order()
    with house.database.session() as uow:
        uow.jobs.note_wait(job_id, WaitsFor.DISK)
        uow.commit()
    assert look(house)["jobs"] == [
        f"warn  {job_id} waits until there is enough disk → free some disk; it then goes on by itself"
    ]


def test_damaged_and_missing_artifacts_are_told(house: House) -> None:
    job_id = version(house, 1)
    weights = house.artifact(job_id, "adapter").folder / "adapter_model.safetensors"
    weights.write_bytes(b"damaged")
    [line] = look(house)["artifacts"]
    assert line.startswith("fail  finance@v1: artifact adapter/")
    assert line.endswith("is damaged: adapter_model.safetensors → POST /domains/finance/rollback, or specialize again")
    digest = house.artifact(job_id, "dataset").digest
    (house.artifact(job_id, "dataset").folder / "manifest.json").unlink()
    assert len(look(house)["artifacts"]) == 1
    lines = look(house, all_artifacts=True)["artifacts"]
    assert [text for text in lines if text.startswith("warn")] == [
        f"warn  there is no artifact dataset/{digest} → retry its job: what is missing is made again"
    ]


def test_a_base_that_is_missing_or_another_is_told(house: House) -> None:
    version(house, 1)
    missing = BaseHere("small", "small is not on this machine", "selfspec models pull", {}, 0)
    bad = look(house, base=missing)
    assert bad["base"] == ["fail  small is not on this machine → selfspec models pull"]
    assert bad["adapters"][0].startswith("warn  cannot be compared with the base")
    [line] = look(house, base=replace(HERE, name="other", fingerprints={"none": "0" * 16}))["adapters"]
    assert line.startswith("fail  finance@v1 was made on fake-base (")
    assert "; other is another → set SELFSPEC_BASE and SELFSPEC_QUANTIZATION" in line


def test_too_little_room_and_memory_are_told(house: House, tmp_path: Path) -> None:
    assert look(house, min_free_bytes=10**18)["disk"][0].endswith(
        "1000000000000 MB needed → free some space (selfspec clean), or let SELFSPEC_DATA_DIR name another place"
    )
    assert look(house, base=replace(HERE, num_bytes=10**18))["memory"][0].startswith("warn")
    with small_disk(tmp_path / "full") as disk:
        disk.fill()
        assert look(house, folders=(disk.folder,))["disk"][0].startswith(f"fail  the disk is full: {disk.folder}")


def test_settings_that_lose_leases_are_told(house: House) -> None:
    [line] = look(house, heartbeat_seconds=20)["settings"]
    assert line.startswith("warn  a heartbeat every 20 s for a lease of 30 s")


def test_webhooks_that_nobody_can_sign_are_told(house: House) -> None:
    job_id = house.order()
    owe_webhooks(house, job_id, 1)
    assert look(house) == {}
    owe_webhooks(house, job_id, 2)
    [line] = look(house)["webhooks"]
    assert line.endswith("there is no secret to sign them with → set SELFSPEC_WEBHOOK_SECRET for the API")
    assert look(house, has_webhook_secret=True) == {}
