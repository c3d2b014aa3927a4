"""What stages took is kept, over all attempts and without what lay between, and later jobs are reckoned by it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest

from app.core.records import BaseInfo, Completion, GenerationRequest
from app.core.states import JobStatus, StageStatus
from app.engine.fake import FakeEngine
from app.models import Throughput
from app.pipeline.bench import WAVE
from app.services.machine import machine_of
from app.services.run_job import JobRunner
from app.services.throughput import START, Experience, fit
from app.services.work import Sort, Work, WorkMeter
from app.storage.artifacts import read_rows
from tests.services.house import BASE, Countdown, House, Killed, MortalEngine

SMALL: dict[str, Any] = {"num_examples": 80, "max_prompts": 320, "min_yield": 0, "promotion": "always", "controls": ()}
INFO = FakeEngine(base_name=BASE).wait_ready()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def kept(house: House, job_id: str) -> dict[str, Throughput]:
    with house.database.session(read_only=True) as uow:
        return {row.stage: row for row in uow.throughputs.newest(BASE) if row.job_id == job_id}


def test_every_stage_leaves_what_it_took(house: House) -> None:
    job_id = house.order(**SMALL)
    house.run(job_id)
    rows, runs = kept(house, job_id), {run.stage: run for run in house.stages(job_id)}
    assert set(rows) == set(runs)
    assert {stage: row.unit for stage, row in rows.items()} == {
        "instructions": "tokens",
        "responses": "tokens",
        "dataset": "comparisons",
        "adapter": "tokens trained",
        "metrics": "tokens",
        "gate": "stages",
    }
    assert all(row.amount > 0 and row.seconds > 0 and row.peak_bytes for row in rows.values())
    assert {stage: row.seconds for stage, row in rows.items()} == {s: run.worked_seconds for s, run in runs.items()}
    assert {row.machine for row in rows.values()} == {machine_of(INFO)}
    [report] = read_rows(house.artifact(job_id, "adapter").folder / "report.json")
    assert rows["adapter"].amount == report["tokens"] == house.services.jobs.get(job_id).trained_tokens
    num_prompts = sum(1 for _ in read_rows(house.artifact(job_id, "instructions").folder / "replies.jsonl"))
    told = rows["instructions"].detail
    assert (told["prompts"], told["accepted"], told["work"]["asked"]) == (num_prompts, 80, num_prompts)
    assert 80 <= told["prompts_read"] < num_prompts


def test_a_stage_that_failed_leaves_nothing_and_those_before_it_do(house: House) -> None:
    job_id = house.order(**SMALL)

    class Broken(FakeEngine):
        def train(self, *arguments: Any, **options: Any) -> NoReturn:
            raise RuntimeError("out of memory")

    house.run(job_id, engine=Broken(base_name=BASE))
    assert house.job(job_id).status is JobStatus.FAILED
    assert set(kept(house, job_id)) == {"instructions", "responses", "dataset"}


def test_time_and_work_are_those_of_all_attempts_without_what_lay_between(house: House) -> None:
    """Killed in the second wave; hours later another process goes on."""
    job_id = house.order(**SMALL)
    first = MortalEngine(Countdown(2))
    with pytest.raises(Killed):
        house.run(job_id, engine=first)
    before = house.stages(job_id)[0]
    assert before.worked_seconds > 0
    assert before.work["asked"] == WAVE
    house.now += timedelta(hours=5)
    second = FakeEngine(base_name=BASE)
    house.run(job_id, engine=second)
    run = house.stages(job_id)[0]
    assert before.worked_seconds < run.worked_seconds < 3600
    told = house.services.jobs.get(job_id).progress[0]
    assert told.seconds == run.worked_seconds
    assert run.work["asked"] == kept(house, job_id)["instructions"].detail["prompts"]  # no prompt was sent twice


def test_a_pause_keeps_the_time_worked_before_it(house: House) -> None:
    job_id = house.order(**SMALL)

    class Pausing(FakeEngine):
        def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
            house.services.mover.pause(job_id)
            return super().generate(requests, **options)

    with pytest.raises(Exception, match="waits for resume"):
        house.run(job_id, engine=Pausing(base_name=BASE))
    run = house.stages(job_id)[0]
    assert run.status is StageStatus.PENDING
    assert WAVE <= run.work["asked"] <= 2 * WAVE  # the next had been asked ahead
    house.now += timedelta(hours=5)
    assert house.services.jobs.get(job_id).progress[0].seconds == run.worked_seconds


def test_the_start_of_a_process_of_its_own_is_kept(house: House) -> None:
    job_id = house.order(**SMALL)
    JobRunner(
        house.take(job_id),
        database=house.database,
        artifacts=house.artifacts,
        engine=FakeEngine(base_name=BASE),
        clock=house.clock,
        age_seconds=lambda: 7.5,
    ).run()
    assert kept(house, job_id)[START].seconds == 7.5
    with house.database.session(read_only=True) as uow:
        start = Experience.read(uow, BASE).start
    assert start is not None
    assert start.seconds(1.0) == pytest.approx(7.5)


def test_the_meter_adds_to_what_was_there() -> None:
    engine, now = FakeEngine(), [100.0]
    meter = WorkMeter(engine, seconds=lambda: now[0])
    engine.generate([GenerationRequest("before it begins")])
    assert (meter.seconds, meter.work) == (0.0, Work())
    meter.begin(seconds=40.0, work=Work(asked=3, read=10, written=5))
    [answer] = engine.generate([GenerationRequest("one two three")])
    now[0] += 2.5
    assert meter.seconds == 42.5
    assert (meter.work.asked, meter.work.written) == (4, 5 + answer.completion_tokens)


# ---- paces ----


def test_one_measurement_gives_a_pace() -> None:
    pace = fit([(100.0, 20.0)])
    assert pace is not None
    assert pace.seconds(50.0) == pytest.approx(10.0)
    assert 1.3 < pace.factor < 1.6


def test_what_agrees_is_surer_than_what_does_not() -> None:
    alike, spread = fit([(100.0, 20.0)] * 8), fit([(100.0, 10.0), (100.0, 40.0)] * 4)
    assert alike is not None
    assert spread is not None
    assert alike.factor < 1.3 < spread.factor
    assert spread.seconds(100.0) == pytest.approx(20.0)


def test_small_and_large_stages_show_what_each_costs_by_itself() -> None:
    pace = fit([(amount, 5.0 + 0.1 * amount) for amount in (10.0, 100.0, 1000.0)])
    assert pace is not None
    assert pace.fixed == pytest.approx(5.0)
    assert pace.a_unit == pytest.approx(0.1)


@pytest.mark.parametrize("points", [[(10.0, 1.0), (100.0, 100.0)], [(10.0, 50.0), (100.0, 20.0)]])
def test_no_pace_has_a_negative_part(points: list[tuple[float, float]]) -> None:
    pace = fit(points)
    assert pace is not None
    assert pace.fixed >= 0
    assert pace.a_unit > 0


def test_nothing_is_fitted_to_nothing() -> None:
    assert fit([]) is None
    assert fit([(0.0, 3.0), (5.0, 0.0)]) is None


# ---- whose ----


def put(house: House, job_id: str, stage: str, *, seconds: float, info: BaseInfo = INFO, **detail: object) -> None:
    with house.database.session() as uow:
        uow.throughputs.put(
            Throughput(
                job_id=job_id,
                stage=stage,
                kind="instructions",
                machine=machine_of(info),
                base=info.name,
                unit="tokens",
                amount=100.0,
                seconds=seconds,
                created_at=house.now,
                detail={"variant": "anchored", "written_cost": 1.5, "work": {"read": 100.0, "asked": 10}, **detail},
            )
        )
        uow.commit()


def test_this_machine_is_reckoned_by_and_another_only_without_it(house: House) -> None:
    job_id, sort = house.order(**SMALL), Sort("instructions", "anchored")
    other = replace(INFO, device="cuda", device_name="NVIDIA H100")
    put(house, job_id, "there", seconds=1.0, info=other)

    def seconds() -> float | None:
        with house.database.session(read_only=True) as uow:
            pace = Experience.read(uow, BASE, info=INFO).pace(sort)
        return None if pace is None else pace.seconds(100.0)

    assert seconds() == pytest.approx(1.0)
    put(house, job_id, "here", seconds=50.0)
    assert seconds() == pytest.approx(50.0)
    assert "NVIDIA H100" in machine_of(other)


def test_plans_are_set_right_by_what_came_of_earlier_ones(house: House) -> None:
    job_id, sort = house.order(**SMALL), Sort("instructions", "anchored")
    planned = {"asked": 20, "read": 400.0}  # 20 a request; it was 10
    put(house, job_id, "a", seconds=1.0, planned=planned, prompts=12, prompts_read=10, accepted=4)
    put(house, job_id, "b", seconds=1.0, planned=planned, prompts=12, prompts_read=10, accepted=8)
    with house.database.session(read_only=True) as uow:
        experience = Experience.read(uow, BASE, info=INFO)
    assert experience.corrected(sort, Work(asked=5, read=100.0)).read == pytest.approx(50.0)
    assert experience.corrected(Sort("instructions", "list"), Work(read=100.0)).read == 100.0
    assert experience.accepted_a_prompt(sort) == pytest.approx(0.6)
    assert experience.accepted_a_prompt(Sort("instructions", "list")) is None


def test_a_machine_goes_by_no_name_of_its_own() -> None:
    assert socket.gethostname() not in machine_of(INFO)
    assert machine_of(INFO) != machine_of(replace(INFO, dtype="bfloat16"))
    assert machine_of(INFO) != machine_of(replace(INFO, quantization="nf4"))
