"""The checks of the chaos run find what is wrong: each is shown a service that is whole, and the same one broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from app.storage.artifacts import MANIFEST, ROWS, ArtifactStore
from tests.chaos.checks import check_all, find, num_takeovers
from tests.chaos.plan import EVALUATION, Caller, Order
from tests.chaos.references import Reference, make_references
from tests.services.house import SEEDS, House

ORDER = Order("key", "finance", {"preset": "quick", "num_examples": 4, "controls": []}, Caller.WAITS, 0)


@dataclass(frozen=True, slots=True)
class Service:
    """What a service left after one job."""

    folder: Path
    job_id: str
    references: dict[str, Reference]

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'selfspec.db'}"

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.folder / "artifacts")

    def faults(self, order: Order = ORDER) -> list[str]:
        return check_all(find(self.url, self.store, {self.job_id: order}), self.references)

    def change(self, statement: str) -> None:
        """SQL; ``:job`` is the job's id."""
        engine = create_engine(self.url)
        with engine.begin() as connection:
            connection.execute(text(statement), {"job": self.job_id} if ":job" in statement else {})
        engine.dispose()

    def product(self, kind: str) -> Path:
        """The folder of the one artifact of a kind."""
        (folder,) = (self.folder / "artifacts" / kind).iterdir()
        return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """One job has run through."""
    folder = tmp_path_factory.mktemp("whole")
    house = House(folder)
    job_id = house.order(seeds=SEEDS, evaluation=EVALUATION, domain=ORDER.domain, **ORDER.recipe)
    house.run(job_id)
    house.database.dispose()
    return Service(folder, job_id, make_references([ORDER], folder / "undisturbed"))


@pytest.fixture
def service(whole: Service, tmp_path: Path) -> Service:
    """A copy to break."""
    shutil.copytree(whole.folder, tmp_path / "copy")
    return Service(tmp_path / "copy", whole.job_id, whole.references)


def test_a_service_that_is_whole_has_no_faults(whole: Service) -> None:
    assert whole.faults() == []


def event(type: str, stage: str = "NULL", *, at: str = "2030-01-01 00:00:00.000000") -> Callable[[Service], None]:
    """Tell one more event."""
    columns = "job_id, created_at, type, message, level, stage, data"
    values = f":job, '{at}', '{type}', 'attempt 2', 'info', {stage}, '{{}}'"
    return lambda service: service.change(f"INSERT INTO events ({columns}) VALUES ({values})")


def sql(statement: str) -> Callable[[Service], None]:
    return lambda service: service.change(statement)


def change_rows(change: Callable[[list[str]], list[str]]) -> Callable[[Service], None]:
    """Give the job another dataset than it should have, as whole as any."""

    def act(service: Service) -> None:
        lines = (service.product("dataset") / ROWS).read_text().splitlines()
        made = service.store.put_rows(map(json.loads, change(lines)), kind="dataset")
        service.change(f"UPDATE stage_runs SET artifact_digest = '{made.digest}' WHERE stage = 'dataset'")
        service.change(
            f"INSERT INTO artifacts (digest, kind, num_bytes, parents, created_at) "
            f"VALUES ('{made.digest}', 'dataset', 1, '[]', '2024-01-05 00:00:00.000000')"
        )

    return act


def leave_draft(service: Service) -> None:
    folder = service.folder / "artifacts" / "tmp" / service.job_id / "attempt-1" / "adapter"
    folder.mkdir(parents=True)
    (folder / ROWS).write_text("{}\n")


def lose_manifest(service: Service) -> None:
    (service.product("adapter") / MANIFEST).unlink()


def tear_file(service: Service) -> None:
    rows = service.product("responses") / ROWS
    rows.write_text(rows.read_text()[:-5])


def show_half_artifact(service: Service) -> None:
    """Under a digest that no row names, with a manifest that promises more than there is."""
    there = service.product("instructions")
    shutil.copytree(there, there.parent / ("0" * 64))
    (there.parent / ("0" * 64) / ROWS).write_text("")


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (sql("UPDATE jobs SET status = 'running'"), "is running"),
        (sql("UPDATE jobs SET id = id || 'x'"), "is not stored"),
        (sql("UPDATE jobs SET status = 'failed', error_code = 'process_died'"), "is failed: process_died"),
        (event("job_succeeded"), "ended 2 times"),
        (event("job_failed"), "ended 2 times"),
        (sql("DELETE FROM events WHERE type = 'job_succeeded'"), "ended 0 times"),
        (event("stage_started", "'adapter'"), "stage_started was told after its end"),
        (event("job_started"), "it began with attempt 1, attempt 2"),
        (event("stage_succeeded", "'dataset'"), "dataset is succeeded and succeeded 2 times"),
        (event("job_retried", at="2001-01-01 00:00:00.000000"), " is older than "),
        (sql("UPDATE jobs SET adapter_id = NULL"), "has no adapter of its own"),
        (sql("UPDATE adapters SET version = 2"), "the versions of finance are [2]"),
        (sql("UPDATE adapters SET domain = 'law'"), "has no adapter of its own"),
        (lose_manifest, "there is no artifact adapter/"),
        (tear_file, "is damaged: rows.jsonl"),
        (show_half_artifact, "is damaged: rows.jsonl"),
        (leave_draft, "left 1 files"),
        (change_rows(lambda lines: lines[1:]), "lost 1 rows and has 0 more"),
        (change_rows(lambda lines: [*lines, lines[0]]), "lost 0 rows and has 1 more"),
        (sql("UPDATE stage_runs SET status = 'pending', artifact_digest = NULL WHERE stage = 'dataset'"), "is None"),
        (sql("DELETE FROM stage_runs WHERE stage = 'responses'"), "has the stages"),
    ],
)
def test_what_is_broken_is_told(service: Service, act: Callable[[Service], None], told: str) -> None:
    act(service)
    faults = service.faults()
    assert any(told in fault for fault in faults), faults


def test_a_caller_who_cancels_may_come_too_late_and_one_who_retries_wants_it_done(service: Service) -> None:
    cancels, retries = (
        Order(ORDER.key, ORDER.domain, ORDER.recipe, caller, 0) for caller in (Caller.CANCELS, Caller.RETRIES)
    )
    assert service.faults(cancels) == []
    service.change("UPDATE jobs SET status = 'cancelled', adapter_id = NULL")
    service.change("UPDATE events SET type = 'job_cancelled' WHERE type = 'job_succeeded'")
    service.change("UPDATE domains SET champion_id = NULL")
    assert not any("is cancelled" in fault for fault in service.faults(cancels))
    assert any("is cancelled" in fault for fault in service.faults(retries))


def test_a_worker_that_was_lost_counts_as_a_takeover_and_a_process_that_died_does_not(service: Service) -> None:
    def count() -> int:
        return num_takeovers(find(service.url, service.store, {}).events[service.job_id])

    event("process_died")(service)
    assert count() == 0
    event("worker_lost")(service)
    assert count() == 1
