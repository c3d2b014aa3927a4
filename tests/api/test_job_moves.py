"""POST /jobs/{id}/cancel, /pause, /resume and /retry: what each answers in each state."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from app.api import row_examples
from app.api.schemas.jobs import JobBody
from app.api.schemas.rows import RowBody, RowChanges, RowPageBody
from app.core.states import JobStatus
from app.services.lease import Held
from tests.api.live import Service
from tests.api.test_walk import work

RECIPE = {"preset": "quick", "num_examples": 5, "max_prompts": 20, "promotion": "always", "controls": []}


def post(service: Service, job_id: str, move: str) -> tuple[int, dict[str, object]]:
    """Status, and what is said about the job or why not."""
    answer = service.http.post(f"/jobs/{job_id}/{move}")
    body = answer.json()
    return answer.status_code, body["error"] if answer.is_error else body


def test_a_waiting_job_is_paused_and_goes_on(service: Service) -> None:
    job_id = service.specialize(recipe=RECIPE).json()["id"]
    for _ in range(2):  # pausing what is paused is no mistake
        status, job = post(service, job_id, "pause")
        assert (status, job["status"], job["waits_for"]) == (200, "queued", "resume")
    status, job = post(service, job_id, "resume")
    assert (status, job["status"], job["waits_for"]) == (200, "queued", None)
    status, error = post(service, job_id, "resume")
    assert (status, error["code"], error["param"]) == (409, "conflict", "status")
    assert "is queued and was not paused: it goes on by itself" in str(error["message"])
    work(service, job_id)
    assert service.job(job_id).status is JobStatus.SUCCEEDED


def test_a_running_job_is_asked_to_pause(service: Service) -> None:
    job_id = service.specialize(recipe=RECIPE).json()["id"]
    with service.resources.database.session() as uow:
        uow.jobs.claim(job_id, owner="w", now=service.resources.clock(), lease_seconds=30)
        uow.commit()
    assert post(service, job_id, "pause")[1]["pause_requested"] is True
    status, job = post(service, job_id, "resume")
    assert (status, job["status"], job["pause_requested"]) == (200, "running", False)


def test_a_failed_or_cancelled_job_is_tried_again(service: Service) -> None:
    failed, cancelled, done = (service.specialize(recipe=RECIPE).json()["id"] for _ in range(3))
    service.finish(failed, JobStatus.FAILED)
    service.finish(done, JobStatus.SUCCEEDED)
    post(service, cancelled, "cancel")
    for job_id in (failed, cancelled):
        status, job = post(service, job_id, "retry")
        assert (status, job["status"], job["error"], job["finished_at"]) == (200, "queued", None, None)
        assert post(service, job_id, "retry")[0] == 409
    work(service, cancelled)
    assert service.job(cancelled).status is JobStatus.SUCCEEDED
    for move, told in (
        ("retry", "is succeeded: only a failed or cancelled one is tried again"),
        ("pause", "is succeeded: there is nothing to pause"),
        ("resume", "is succeeded and was not paused"),
    ):
        status, error = post(service, done, move)
        assert status == 409
        assert told in str(error["message"])


@pytest.mark.parametrize("move", ["cancel", "pause", "resume", "retry"])
def test_no_such_job(service: Service, move: str) -> None:
    status, error = post(service, "job-1", move)
    assert (status, error["message"]) == (404, "there is no job 'job-1'")


def test_a_job_that_waits_for_review_says_so(service: Service) -> None:
    job_id = service.specialize(recipe={**RECIPE, "review": True}).json()["id"]
    with pytest.raises(Held):
        work(service, job_id)
    job = service.http.get(f"/jobs/{job_id}").json()
    assert (job["status"], job["stage"], job["waits_for"]) == ("queued", "dataset", "review")
    assert post(service, job_id, "pause")[1]["waits_for"] == "review"
    assert post(service, job_id, "resume")[1]["waits_for"] is None


def test_examples_are_true() -> None:
    pairs: list[tuple[type[BaseModel], dict[str, object]]] = [
        (JobBody, row_examples.PAUSING_JOB),
        (JobBody, row_examples.RETRIED_JOB),
        (RowBody, row_examples.ROW),
        (RowBody, row_examples.EDITED_ROW),
        (RowBody, row_examples.DELETED_ROW),
        (RowPageBody, row_examples.ROWS),
        (RowChanges, dict(row_examples.CHANGES)),
    ]
    for model, example in pairs:
        assert model.model_validate(example).model_dump(mode="json", exclude_unset=True) == example
