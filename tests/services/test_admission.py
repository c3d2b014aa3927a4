"""Whether a job is begun: what it waits for is said once, with figures, and it never waits for what cannot come."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.states import JobStatus, WaitsFor
from app.models import Throughput
from app.services.admission import Admission, assumed_bytes
from app.services.room import Room
from tests.services.house import BASE, House

GB = 1_000_000_000


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def admission(house: House, *, needed: int | None = None, base_bytes: int = 0, min_free_bytes: int = 0) -> Admission:
    return Admission(
        house.database,
        data_dir=house.artifacts.root,
        clock=house.clock,
        device="cpu",
        job_memory_bytes=needed,
        base_bytes=lambda: base_bytes,
        min_free_bytes=min_free_bytes,
    )


def admit(
    asked: Admission, job_id: str, *, free: int, total: int = 16 * GB, is_alone: bool = True, trouble: str | None = None
) -> int | None:
    return asked.admit(job_id, room=Room("memory", free, total), disk_trouble=trouble, is_alone=is_alone)


def told(house: House, job_id: str) -> list[str]:
    types = ("waiting_for_memory", "waiting_for_disk", "memory_may_not_do")
    return [event.message for event in house.events(job_id) if event.type in types]


def learn(house: House, job_id: str, stage: str, *, peak_bytes: int, machine: str) -> None:
    with house.database.session() as uow:
        uow.throughputs.put(
            Throughput(
                job_id=job_id,
                stage=stage,
                kind="adapter",
                machine=machine,
                base=BASE,
                unit="tokens",
                amount=1.0,
                seconds=1.0,
                created_at=house.now,
                peak_bytes=peak_bytes,
            )
        )
        uow.commit()


def test_a_job_waits_for_memory_and_says_so_once(house: House) -> None:
    job_id, asked = house.order(), admission(house, needed=4 * GB)
    for _ in range(3):
        assert admit(asked, job_id, free=3 * GB) is None
    assert (house.job(job_id).status, house.job(job_id).waits_for) == (JobStatus.QUEUED, WaitsFor.MEMORY)
    assert told(house, job_id) == [
        "the job needs about 4.0 GB, 3.0 of 16.0 GB memory free (SELFSPEC_JOB_MEMORY_BYTES sets another need)"
    ]
    assert admit(asked, job_id, free=4 * GB) == 4 * GB
    house.take(job_id)
    assert house.job(job_id).waits_for is None


def test_a_job_that_needs_more_than_there_is_is_tried_when_nothing_else_runs(house: House) -> None:
    """It would wait for ever."""
    job_id, asked = house.order(), admission(house, needed=20 * GB)
    assert admit(asked, job_id, free=15 * GB, is_alone=False) is None
    assert admit(asked, job_id, free=15 * GB) == 20 * GB
    assert told(house, job_id)[-1].endswith("; it is tried all the same")


def test_a_job_waits_for_the_disk_whatever_memory_there_is(house: House) -> None:
    asked = admission(house, needed=0, min_free_bytes=10**18)
    trouble, job_id = asked.disk_trouble(), house.order()
    assert trouble is not None
    assert admit(asked, job_id, free=0, trouble=trouble) is None
    assert house.job(job_id).waits_for is WaitsFor.DISK
    assert told(house, job_id) == [trouble]
    assert admission(house).disk_trouble() is None


def test_what_earlier_jobs_took_is_what_is_needed(house: House) -> None:
    """Of the same base on the same kind of device."""
    past, job_id = house.order(), house.order()
    learn(house, past, "instructions", peak_bytes=2 * GB, machine="x, 2 cores; cpu, none, float32")
    learn(house, past, "adapter", peak_bytes=3 * GB, machine="x, 2 cores; cpu, none, float32")
    asked = admission(house, base_bytes=GB)
    assert admit(asked, job_id, free=3 * GB - 1) is None
    assert admit(asked, job_id, free=3 * GB) == 3 * GB


def test_a_base_that_no_job_ran_on_is_judged_by_its_size(house: House) -> None:
    job_id = house.order()
    assert admit(admission(house, base_bytes=GB), job_id, free=16 * GB) == assumed_bytes(GB, device="cpu") == 4 * GB
    assert assumed_bytes(GB, device="cuda") == 3 * GB
    assert admit(admission(house, base_bytes=0), job_id, free=0) == 0  # not here yet: nothing is known


def test_a_job_that_is_held_by_a_person_stays_so(house: House) -> None:
    job_id = house.order()
    house.services.mover.pause(job_id)
    assert admit(admission(house, needed=GB), job_id, free=0) is None
    assert house.job(job_id).waits_for is WaitsFor.RESUME
    assert told(house, job_id) == []
