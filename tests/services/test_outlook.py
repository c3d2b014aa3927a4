"""Every job says when it will end and how many are before it; a page of them costs no more queries than one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from app.core.records import Completion, GenerationRequest
from app.core.states import JobStatus, StageStatus
from app.engine.fake import FakeEngine
from app.services.views import JobView
from tests.services.house import BASE, House

SMALL: dict[str, Any] = {
    "num_examples": 40,
    "max_prompts": 160,
    "min_yield": 0,
    "promotion": "always",
    "controls": (),
}
MINUTE = 60.0


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> House:
    """One job has ended here, and every stage of it took a minute."""
    house = House(tmp_path_factory.mktemp("built") / "house")
    house.run(house.order(**SMALL))
    let_stages_take(house, MINUTE)
    return house


@pytest.fixture
def house(built: House, tmp_path: Path) -> House:
    """A copy of it."""
    shutil.copytree(built.artifacts.root.parent, tmp_path / "house")
    house = House(tmp_path / "house")
    house.now = built.now
    return house


@pytest.fixture
def new_house(tmp_path: Path) -> House:
    """No job has ended here."""
    return House(tmp_path / "house")


def orders(house: House, count: int) -> list[str]:
    """Made a second apart."""
    ids = []
    for _ in range(count):
        house.now += timedelta(seconds=1)
        ids.append(house.order(**SMALL))
    return ids


def views(house: House) -> dict[str, JobView]:
    return {view.id: view for view in house.services.jobs.list(limit=100).items}


def let_stages_take(house: House, seconds: float) -> None:
    """As if every stage that ended had taken so long, whatever it did."""
    with house.database.session() as uow:
        for row in uow.throughputs.newest(BASE):
            row.seconds = seconds
        uow.commit()


@contextmanager
def counted(house: House) -> Iterator[list[str]]:
    """The queries that are sent inside it."""
    sent: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.startswith("SELECT"):
            sent.append(statement)

    event.listen(house.database._engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(house.database._engine, "before_cursor_execute", note)


def test_jobs_stand_in_line_in_the_order_of_their_orders(house: House) -> None:
    ids = orders(house, 3)
    seen = views(house)
    assert [seen[job_id].queue_position for job_id in ids] == [1, 2, 3]
    ends = [seen[job_id].estimated_finish for job_id in ids]
    assert all(end is not None and end > house.now for end in ends)
    assert ends == sorted(ends, key=str)
    assert house.services.jobs.get(ids[1]) == seen[ids[1]]


def test_who_waits_for_a_person_holds_nobody_up(house: House) -> None:
    ids = orders(house, 3)
    before = views(house)[ids[2]].estimated_finish
    house.services.mover.pause(ids[0])
    seen = views(house)
    assert [seen[job_id].queue_position for job_id in ids] == [None, 1, 2]
    assert seen[ids[0]].estimated_finish is None
    assert (seen[ids[0]].seconds_remaining or 0) > 0
    after = seen[ids[2]].estimated_finish
    assert before is not None
    assert after is not None
    assert after < before
    house.services.mover.resume(ids[0])
    assert [views(house)[job_id].queue_position for job_id in ids] == [1, 2, 3]


def test_what_is_left_follows_from_what_past_jobs_took(house: House) -> None:
    first, second = orders(house, 2)
    seen = views(house)
    assert seen[first].seconds_remaining == pytest.approx(6 * MINUTE, rel=0.2)  # of six stages
    assert (seen[second].seconds_remaining, seen[second].queue_position) == (seen[first].seconds_remaining, 2)
    finish = seen[second].estimated_finish
    assert finish is not None
    assert (finish - house.now).total_seconds() == pytest.approx(12 * MINUTE, rel=0.2)


def test_a_running_job_is_nearer_to_its_end_with_every_stage(house: House) -> None:
    """A minute a stage; seen whenever the engine is asked."""
    [job_id] = orders(house, 1)
    seen: list[tuple[str | None, float]] = []

    class Watching(FakeEngine):
        def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
            view = house.services.jobs.get(job_id)
            assert view.queue_position is None
            seen.append((view.stage, view.seconds_remaining or 0.0))
            return super().generate(requests, **options)

    house.run(job_id, engine=Watching(base_name=BASE))
    left = dict(reversed(seen))  # at the first look into each
    assert left["instructions"] == pytest.approx(6 * MINUTE, rel=0.2)
    assert left["responses"] == pytest.approx(5 * MINUTE, rel=0.2)
    assert left["metrics"] == pytest.approx(2 * MINUTE, rel=0.2)
    ended = house.services.jobs.get(job_id)
    assert (ended.status, ended.seconds_remaining, ended.estimated_finish) == (JobStatus.SUCCEEDED, None, None)


def test_the_pace_of_the_stage_at_work_outweighs_the_plan_the_further_it_is(house: House) -> None:
    [job_id] = orders(house, 1)
    house.take(job_id)
    with house.database.session() as uow:
        for stage in ("instructions", "responses", "dataset", "adapter"):
            uow.stage_runs.skip(job_id, stage, now=house.now)
        uow.stage_runs.start(job_id, "metrics", now=house.now, total=100)
        uow.commit()

    def left(done: int, *, after_seconds: float) -> float:
        house.now += timedelta(seconds=after_seconds)
        with house.database.session() as uow:
            uow.stage_runs.progress(job_id, "metrics", done=done)
            uow.commit()
        return (house.services.jobs.get(job_id).seconds_remaining or 0.0) - MINUTE  # of the gate

    assert left(0, after_seconds=0) == pytest.approx(MINUTE, rel=0.2)
    early, late = left(1, after_seconds=10), left(90, after_seconds=890)  # ten seconds each: ten times slower
    assert MINUTE / 2 < early < 2.5 * MINUTE
    assert late == pytest.approx(100, rel=0.15)


def test_beside_two_running_jobs_a_third_waits_for_the_first_to_end(house: House) -> None:
    ids = orders(house, 3)
    house.take(ids[0], owner="one")
    house.take(ids[1], owner="two")
    with house.database.session() as uow:
        for stage in ("instructions", "responses", "dataset"):
            uow.stage_runs.skip(ids[1], stage, now=house.now)
        uow.commit()
    seen = views(house)
    assert [seen[job_id].queue_position for job_id in ids] == [None, None, 1]
    finish = seen[ids[2]].estimated_finish
    assert finish is not None
    assert (finish - house.now).total_seconds() == pytest.approx((3 + 6) * MINUTE, rel=0.2)


def test_the_first_job_of_all_has_a_finish_too(new_house: House) -> None:
    [job_id] = orders(new_house, 1)
    view = new_house.services.jobs.get(job_id)
    assert view.estimated_finish is not None
    assert view.trained_tokens is None


def test_a_job_that_was_planned_by_nobody_says_nothing(house: House) -> None:
    """Jobs made before there were plans."""
    first, second = orders(house, 2)
    with house.database.session() as uow:
        for run in uow.stage_runs.list(first):
            run.planned = None
        uow.commit()
    seen = views(house)
    assert (seen[first].queue_position, seen[first].estimated_finish, seen[first].seconds_remaining) == (1, None, None)
    assert (seen[second].queue_position, seen[second].estimated_finish) == (2, None)
    assert seen[second].seconds_remaining is not None


def test_a_job_tried_again_is_to_do_what_it_had_not_done(house: House) -> None:
    [job_id] = orders(house, 1)

    class Broken(FakeEngine):
        def train(self, *arguments: Any, **options: Any) -> Any:
            raise RuntimeError("out of memory")

    house.run(job_id, engine=Broken(base_name=BASE))
    failed = house.services.jobs.get(job_id)
    assert (failed.status, failed.queue_position, failed.estimated_finish) == (JobStatus.FAILED, None, None)
    let_stages_take(house, MINUTE)
    house.services.mover.retry(job_id)
    again = house.services.jobs.get(job_id)
    assert [stage.status for stage in again.progress][:3] == [StageStatus.SUCCEEDED] * 3
    assert again.queue_position == 1
    assert again.seconds_remaining == pytest.approx(3 * MINUTE, rel=0.2)


@pytest.mark.parametrize("are_done", [False, True])
def test_a_page_of_jobs_costs_no_more_queries_than_one(house: House, are_done: bool) -> None:
    for job_id in orders(house, 11):
        if are_done:
            house.services.mover.cancel(job_id)
    sent = {}
    for limit in (1, 12):
        with counted(house) as queries:
            page = house.services.jobs.list(limit=limit)
        assert len(page.items) == limit
        sent[limit] = len(queries)
    assert sent[1] == sent[12] <= (3 if are_done else 5)


def test_jobs_in_openais_words_take_as_few_queries(house: House) -> None:
    for _ in range(3):
        house.run(house.order(**SMALL))
    orders(house, 9)
    sent = {}
    for limit in (1, 12):
        with counted(house) as queries:
            page = house.services.tuner.list(limit=limit)
        assert len(page.items) == limit
        sent[limit] = len(queries)
    assert sent[12] <= sent[1] + 1  # the newest has no expert whose name is asked
