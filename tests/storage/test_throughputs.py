"""What stages took, as it is found again: of one base on one machine, the newest first."""

from __future__ import annotations

from datetime import timedelta

from app.models import Throughput
from app.storage.database import Database
from tests.storage.samples import NOW, new_job


def took(stage: str, *, minute: int = 0, machine: str = "here", base: str = "tiny", seconds: float = 1.0) -> Throughput:
    return Throughput(
        job_id="job-1",
        stage=stage,
        kind="adapter",
        machine=machine,
        base=base,
        unit="tokens trained",
        amount=10.0,
        seconds=seconds,
        created_at=NOW + timedelta(minutes=minute),
    )


def fill(database: Database, *throughputs: Throughput) -> None:
    with database.session() as uow:
        uow.jobs.add(new_job())
        for each in throughputs:
            uow.throughputs.put(each)
        uow.commit()


def test_the_newest_of_a_base_on_a_machine(database: Database) -> None:
    fill(
        database,
        took("a", minute=1),
        took("b", minute=3),
        took("c", minute=5, machine="there"),
        took("d", minute=2),
        took("e", base="other"),
    )
    with database.session(read_only=True) as uow:
        found = {
            machine: [row.stage for row in uow.throughputs.newest("tiny", machine=machine, limit=2)]
            for machine in ("here", "there", "nowhere", None)
        }
        none = uow.throughputs.newest("unheard")
    assert found == {"here": ["b", "d"], "there": ["c"], "nowhere": ["c"], None: ["c"]}
    assert list(none) == []


def test_a_stage_that_is_run_again_is_kept_once(database: Database) -> None:
    fill(database, took("a", seconds=1.0), took("a", seconds=9.0))
    with database.session(read_only=True) as uow:
        assert [row.seconds for row in uow.throughputs.newest("tiny")] == [9.0]
