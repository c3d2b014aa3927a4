"""Stage runs and events: how far a job is, and its story."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.core.errors import NotFound
from app.core.states import JobStatus, StageStatus
from app.models import EventLevel
from app.storage.database import Database, UnitOfWork
from tests.storage.samples import LATER, NOW, new_job, store_job

STAGES = ("instructions", "responses", "adapter")


def start(uow: UnitOfWork, stage: str = "instructions") -> None:
    uow.jobs.add(new_job())
    uow.stage_runs.ensure("job-1", STAGES)
    uow.stage_runs.start("job-1", stage, now=NOW, total=10)


def test_stages_are_listed_in_their_order_and_made_once(database: Database) -> None:
    with database.session() as uow:
        start(uow)
        uow.stage_runs.ensure("job-1", STAGES)
        runs = uow.stage_runs.list("job-1")
    assert [run.stage for run in runs] == list(STAGES)
    assert [run.status for run in runs] == [StageStatus.RUNNING, StageStatus.PENDING, StageStatus.PENDING]


def test_the_stage_that_runs_is_the_jobs_stage(database: Database) -> None:
    with database.session() as uow:
        start(uow, "responses")
        assert uow.jobs.get("job-1").stage == "responses"


def test_progress_is_told_to_other_sessions(database: Database) -> None:
    with database.session() as uow:
        start(uow)
        uow.commit()
        uow.stage_runs.progress("job-1", "instructions", done=4)
        uow.commit()
    with database.session(read_only=True) as uow:
        run = uow.stage_runs.get("job-1", "instructions")
    assert (run.done, run.total) == (4, 10)


def test_a_finished_stage_did_all_it_had_to(database: Database) -> None:
    with database.session() as uow:
        start(uow)
        uow.stage_runs.progress("job-1", "instructions", done=7, total=12)
        uow.stage_runs.finish("job-1", "instructions", now=LATER, artifact_digest="d" * 64, detail={"rejected": 5})
        uow.commit()
        run = uow.stage_runs.get("job-1", "instructions")
    assert (run.status, run.done, run.total) == (StageStatus.SUCCEEDED, 7, 7)
    assert (run.artifact_digest, run.detail) == ("d" * 64, {"rejected": 5})
    assert (run.started_at, run.finished_at) == (NOW, LATER)


def test_a_stage_taken_up_again_keeps_what_it_did(database: Database) -> None:
    with database.session() as uow:
        start(uow)
        uow.stage_runs.progress("job-1", "instructions", done=4)
        uow.stage_runs.fail("job-1", now=LATER)
        run = uow.stage_runs.start("job-1", "instructions", now=LATER)
    assert (run.status, run.done, run.total) == (StageStatus.RUNNING, 4, 10)
    assert (run.started_at, run.finished_at) == (NOW, None)


def test_time_and_work_are_noted_and_plans_kept(database: Database) -> None:
    with database.session() as uow:
        start(uow)
        uow.stage_runs.plan("job-1", {"responses": {"read": 7.0}, "unheard": {}})
        uow.stage_runs.note_work("job-1", "instructions", seconds=12.5, work={"asked": 3}, now=LATER)
        uow.commit()
    with database.session(read_only=True) as uow:
        runs = uow.stage_runs.list("job-1")
    assert [(run.worked_seconds, run.work, run.planned) for run in runs] == [
        (12.5, {"asked": 3}, None),
        (0.0, {}, {"read": 7.0}),
        (0.0, {}, None),
    ]
    assert [run.worked_at for run in runs] == [LATER, None, None]


def test_the_stages_of_many_jobs_are_read_together(database: Database) -> None:
    """Open ones with their jobs, the oldest first; a job without stages has none."""
    with database.session() as uow:
        for number, status in enumerate(("succeeded", "running", "queued", "queued")):
            moment = NOW - timedelta(minutes=number)
            uow.jobs.add(new_job(f"job-{number}", status=JobStatus(status), created_at=moment))
            if number < 3:
                uow.stage_runs.ensure(f"job-{number}", STAGES)
        found = uow.stage_runs.of(["job-0", "job-2", "job-3", "job-9"])
        opened = uow.stage_runs.open()
        uow.stage_runs.of([])
    names = {job_id: tuple(run.stage for run in runs) for job_id, runs in found.items()}
    assert names == {"job-0": STAGES, "job-2": STAGES, "job-3": (), "job-9": ()}
    assert [(job.id, tuple(run.stage for run in runs)) for job, runs in opened] == [
        ("job-3", ()),
        ("job-2", STAGES),
        ("job-1", STAGES),
    ]


def test_only_the_stage_that_ran_fails(database: Database) -> None:
    with database.session() as uow:
        start(uow)
        uow.stage_runs.finish("job-1", "instructions", now=NOW)
        uow.stage_runs.start("job-1", "responses", now=NOW)
        uow.stage_runs.fail("job-1", now=LATER, status=StageStatus.CANCELLED)
        statuses = [run.status for run in uow.stage_runs.list("job-1")]
    assert statuses == [StageStatus.SUCCEEDED, StageStatus.CANCELLED, StageStatus.PENDING]


def test_an_unknown_stage_is_not_found(database: Database) -> None:
    with database.session() as uow:
        start(uow)
        with pytest.raises(NotFound, match="no stage 'gate'"):
            uow.stage_runs.start("job-1", "gate", now=NOW)


def test_events_are_told_in_order_and_from_where_a_reader_was(database: Database) -> None:
    store_job(database)
    with database.session() as uow:
        for number in range(5):
            uow.events.add("job-1", "training_step", f"step {number}", now=NOW, data={"number": number})
        uow.events.add("job-1", "work_kept", "gone", now=NOW, level=EventLevel.WARNING, stage="adapter")
        uow.commit()
    with database.session(read_only=True) as uow:
        first = uow.events.list("job-1", limit=4)
        rest = uow.events.list("job-1", after=first[-1].id)
        assert list(uow.events.list("job-none")) == []
    assert [event.data["number"] for event in first] == [0, 1, 2, 3]
    assert [(event.message, event.level, event.stage) for event in rest] == [
        ("step 4", EventLevel.INFO, None),
        ("gone", EventLevel.WARNING, "adapter"),
    ]
