"""Jobs: the lease, the moves, cancelling, and the lists people and sweeps read."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.core.errors import Conflict, Fault, InvalidInput, NotFound, Problem, StageFailed
from app.core.states import JobStatus, WaitsFor
from app.models import Job
from app.storage.database import Database
from app.storage.jobs import Failure
from tests.storage.samples import DOMAIN, LATER, LEASE_SECONDS, NOW, at_once, new_job, store_job


def claim(database: Database, owner: str, *, now: object = NOW, job_id: str = "job-1") -> int | None:
    with database.session() as uow:
        claim = uow.jobs.claim(job_id, owner=owner, now=now, lease_seconds=LEASE_SECONDS)  # type: ignore[arg-type]
        uow.commit()
    return None if claim is None else claim.attempt


def move(database: Database, after: JobStatus, **values: object) -> Job:
    with database.session() as uow:
        job = uow.jobs.move("job-1", after, now=LATER, **values)  # type: ignore[arg-type]
        uow.commit()
    return job


def get(database: Database, job_id: str = "job-1") -> Job:
    with database.session() as uow:
        return uow.jobs.get(job_id)


def test_of_many_claimers_one_wins(database: Database) -> None:
    store_job(database)
    attempts = at_once(lambda number: claim(database, f"worker-{number}"), times=8)
    winners = [number for number, attempt in enumerate(attempts) if attempt is not None]
    assert len(winners) == 1
    job = get(database)
    assert (job.status, job.owner, job.attempt) == (JobStatus.RUNNING, f"worker-{winners[0]}", 1)
    assert (job.heartbeat_at, job.started_at) == (NOW, NOW)


def test_a_lease_that_runs_is_not_taken_over(database: Database) -> None:
    store_job(database)
    assert claim(database, "first") == 1
    assert claim(database, "second", now=NOW + timedelta(seconds=LEASE_SECONDS)) is None
    assert get(database).owner == "first"


def test_a_lease_that_ran_out_is_taken_over_once(database: Database) -> None:
    store_job(database)
    claim(database, "dead")
    attempts = at_once(lambda number: claim(database, f"worker-{number}", now=LATER), times=4)
    assert sorted(attempts, key=str) == [2, None, None, None]
    job = get(database)
    assert (job.started_at, job.heartbeat_at) == (NOW, LATER)


def test_a_heartbeat_keeps_the_lease_and_tells_the_old_owner_that_it_lost(database: Database) -> None:
    store_job(database)
    claim(database, "first")
    with database.session() as uow:
        assert uow.jobs.heartbeat("job-1", owner="first", attempt=1, now=LATER)
        uow.commit()
    assert claim(database, "second", now=LATER) is None
    assert claim(database, "second", now=LATER + timedelta(seconds=LEASE_SECONDS + 1)) == 2
    with database.session() as uow:
        assert not uow.jobs.heartbeat("job-1", owner="first", attempt=1, now=LATER)
        assert not uow.jobs.heartbeat("job-1", owner="second", attempt=1, now=LATER)


def test_final_and_unknown_jobs_cannot_be_claimed(database: Database) -> None:
    store_job(database)
    claim(database, "first")
    move(database, JobStatus.SUCCEEDED)
    assert claim(database, "second", now=LATER + timedelta(days=1)) is None
    assert claim(database, "second", job_id="job-none") is None


def test_a_cancelled_queued_job_never_runs(database: Database) -> None:
    store_job(database)
    with database.session() as uow:
        job = uow.jobs.request_cancel("job-1", now=LATER)
        uow.commit()
    assert (job.status, job.finished_at) == (JobStatus.CANCELLED, LATER)
    assert claim(database, "worker") is None


def test_a_validating_job_is_cancelled_at_once(database: Database) -> None:
    store_job(database, status=JobStatus.VALIDATING_FILES)
    with database.session() as uow:
        assert uow.jobs.request_cancel("job-1", now=LATER).status is JobStatus.CANCELLED


def test_cancelling_a_running_job_asks_its_owner(database: Database) -> None:
    store_job(database)
    claim(database, "worker")
    with database.session() as uow:
        job = uow.jobs.request_cancel("job-1", now=LATER)
        uow.commit()
    assert (job.status, job.cancel_requested, job.finished_at) == (JobStatus.RUNNING, True, None)
    assert move(database, JobStatus.CANCELLED, attempt=1).status is JobStatus.CANCELLED


def test_a_dead_owner_does_not_keep_a_job_from_being_cancelled(database: Database) -> None:
    store_job(database)
    claim(database, "dead")
    with database.session() as uow:
        uow.jobs.request_cancel("job-1", now=NOW)
        uow.commit()
    assert claim(database, "heir", now=LATER) == 2
    assert get(database).cancel_requested


def test_cancelling_a_final_job_changes_nothing(database: Database) -> None:
    store_job(database)
    claim(database, "worker")
    move(database, JobStatus.SUCCEEDED)
    with database.session() as uow:
        job = uow.jobs.request_cancel("job-1", now=LATER + timedelta(days=1))
    assert (job.status, job.cancel_requested, job.finished_at) == (JobStatus.SUCCEEDED, False, LATER)


def test_cancelling_an_unknown_job_is_not_found(database: Database) -> None:
    with database.session() as uow, pytest.raises(NotFound, match="job-none"):
        uow.jobs.request_cancel("job-none", now=NOW)


def test_only_allowed_moves_are_made(database: Database) -> None:
    store_job(database)
    with pytest.raises(Conflict, match="queued cannot become succeeded"):
        move(database, JobStatus.SUCCEEDED)
    with pytest.raises(Conflict, match="when it is claimed"):
        move(database, JobStatus.RUNNING)
    claim(database, "worker")
    move(database, JobStatus.SUCCEEDED)
    with pytest.raises(Conflict, match="succeeded cannot become failed"):
        move(database, JobStatus.FAILED)


def test_who_lost_the_lease_cannot_end_the_job(database: Database) -> None:
    store_job(database)
    claim(database, "first")
    claim(database, "second", now=LATER)
    with pytest.raises(Conflict, match="under this lease"):
        move(database, JobStatus.FAILED, attempt=1)
    assert move(database, JobStatus.SUCCEEDED, attempt=2).status is JobStatus.SUCCEEDED


def test_a_failure_is_told_whole(database: Database) -> None:
    store_job(database)
    claim(database, "worker")
    job = move(
        database, JobStatus.FAILED, failure=Failure("stage_failed", "stage adapter: no rows", "seeds", Fault.USER)
    )
    assert (job.error_code, job.error_message) == ("stage_failed", "stage adapter: no rows")
    assert (job.error_param, job.error_fault, job.finished_at) == ("seeds", Fault.USER, LATER)


def test_a_job_that_is_queued_again_has_no_owner_and_can_be_claimed(database: Database) -> None:
    store_job(database)
    claim(database, "worker")
    job = move(database, JobStatus.QUEUED)
    assert (job.owner, job.heartbeat_at, job.finished_at, job.attempt) == (None, None, None, 1)
    assert claim(database, "heir") == 2


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (
            StageFailed("gate", "worse", fault=Fault.USER),
            Failure("stage_failed", "stage gate: worse", None, Fault.USER),
        ),
        (InvalidInput([Problem("base", "gone")]), Failure("invalid_input", "base: gone", "base", Fault.USER)),
        (KeyError("x"), Failure("internal_error", "KeyError: 'x'", None, Fault.SERVICE)),
    ],
)
def test_a_failure_knows_whose_fault_it_is(error: Exception, failure: Failure) -> None:
    assert Failure.of(error) == failure


def test_jobs_are_listed_newest_first_in_pages(database: Database) -> None:
    for number in range(5):
        store_job(database, f"job-{number}", created_at=NOW + timedelta(seconds=number // 2))
    with database.session(read_only=True) as uow:
        first = [job.id for job in uow.jobs.list(limit=2)]
        second = [job.id for job in uow.jobs.list(limit=2, after=first[-1])]
        third = [job.id for job in uow.jobs.list(limit=2, after=second[-1])]
        with pytest.raises(NotFound):
            uow.jobs.list(after="job-none")
    assert first + second + third == ["job-4", "job-3", "job-2", "job-1", "job-0"]


def test_jobs_are_listed_by_domain_and_status(database: Database) -> None:
    with database.session() as uow:
        uow.domains.get_or_add("sports", now=NOW)
        uow.jobs.add(new_job("job-1"))
        uow.jobs.add(new_job("job-2", domain="sports"))
        uow.jobs.request_cancel("job-1", now=NOW)
        assert [job.id for job in uow.jobs.list(domain="sports")] == ["job-2"]
        assert [job.id for job in uow.jobs.list(domain=DOMAIN, status=JobStatus.QUEUED)] == []
        assert [job.id for job in uow.jobs.list(status=JobStatus.CANCELLED)] == ["job-1"]


def test_a_sweep_finds_what_waits_and_what_was_abandoned(database: Database) -> None:
    for number in (2, 1, 0):
        store_job(database, f"job-{number}", created_at=NOW + timedelta(seconds=number))
    claim(database, "worker", job_id="job-1")
    with database.session(read_only=True) as uow:
        assert list(uow.jobs.queued_ids()) == ["job-0", "job-2"]
        assert list(uow.jobs.expired_ids(now=NOW, lease_seconds=LEASE_SECONDS)) == []
        assert list(uow.jobs.expired_ids(now=LATER, lease_seconds=LEASE_SECONDS)) == ["job-1"]


def test_an_idempotency_key_makes_one_job(database: Database) -> None:
    def add(number: int) -> str:
        try:
            return store_job(database, f"job-{number}", idempotency_key="same")
        except Conflict:
            return "refused"

    made = at_once(add, times=5)
    assert made.count("refused") == 4
    with database.session() as uow:
        found = uow.jobs.by_idempotency_key("same")
        assert found is not None
        assert found.id in made
        assert uow.jobs.by_idempotency_key("other") is None


def test_after_a_refused_key_the_unit_of_work_goes_on(database: Database) -> None:
    store_job(database, idempotency_key="same")
    with database.session() as uow:
        with pytest.raises(Conflict) as refusal:
            uow.jobs.add(new_job("job-2", idempotency_key="same"))
        uow.jobs.add(new_job("job-3"))
        uow.commit()
    assert refusal.value.param == "idempotency_key"
    assert get(database, "job-3").id == "job-3"


def test_a_job_whose_owner_is_gone_is_cancelled_at_once(database: Database) -> None:
    store_job(database)
    claim(database, "dead")
    with database.session() as uow:
        job = uow.jobs.request_cancel("job-1", now=LATER, lease_seconds=LEASE_SECONDS)
        uow.commit()
    assert (job.status, job.finished_at) == (JobStatus.CANCELLED, LATER)
    with database.session() as uow:
        assert not uow.jobs.heartbeat("job-1", owner="dead", attempt=1, now=LATER)


def test_a_job_whose_owner_lives_is_not_cancelled_behind_its_back(database: Database) -> None:
    store_job(database)
    claim(database, "alive")
    with database.session() as uow:
        job = uow.jobs.request_cancel("job-1", now=NOW, lease_seconds=LEASE_SECONDS)
    assert (job.status, job.cancel_requested) == (JobStatus.RUNNING, True)


def test_who_lost_the_lease_cannot_end_a_job_that_is_tried_again(database: Database) -> None:
    """It was cancelled without its old owner and queued again; that owner woke up and cancelled it once more."""
    store_job(database)
    claim(database, "stale")
    with database.session() as uow:
        uow.jobs.request_cancel("job-1", now=LATER, lease_seconds=LEASE_SECONDS)
        uow.jobs.retry("job-1")
        uow.commit()
    with pytest.raises(Conflict, match="under this lease"):
        move(database, JobStatus.CANCELLED, attempt=1)


def test_a_worker_may_take_the_oldest_whatever_it_waits_for_but_people(database: Database) -> None:
    for number in range(6):
        store_job(database, f"job-{number}", created_at=NOW + timedelta(seconds=number))
    claim(database, "dead", job_id="job-1")
    claim(database, "alive", job_id="job-2", now=LATER)
    with database.session() as uow:
        uow.jobs.note_wait("job-3", WaitsFor.MEMORY)
        uow.jobs.request_pause("job-4")
        uow.commit()
    with database.session(read_only=True) as uow:
        taken = {limit: uow.jobs.takeable_ids(now=LATER, lease_seconds=LEASE_SECONDS, limit=limit) for limit in (2, 9)}
    assert taken == {2: ["job-0", "job-1"], 9: ["job-0", "job-1", "job-3", "job-5"]}


def test_deaths_are_counted_until_they_are_forgotten(database: Database) -> None:
    store_job(database)
    with database.session() as uow:
        assert [uow.jobs.count_death("job-1"), uow.jobs.count_death("job-1")] == [1, 2]
        uow.jobs.forget_deaths("job-1")
        assert uow.jobs.count_death("job-1") == 1
