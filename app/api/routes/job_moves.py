"""POST /jobs/{job_id}/…: end a job, pause it, let it go on, try it again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from app.api import examples, row_examples
from app.api.deps import ServicesDep
from app.api.schemas.errors import refusals
from app.api.schemas.jobs import JobBody
from app.core.errors import Conflict, NotFound

router = APIRouter(prefix="/jobs", tags=["jobs"])

JobId = Annotated[str, Path(description="The job's id.", examples=[examples.JOB_ID])]
_MISSING = NotFound("there is no job 'job-1'", param="job_id")


@router.post(
    "/{job_id}/cancel",
    summary="Cancel a job",
    description="A waiting job ends at once, a running one when its worker has seen it; an ended one stays as it is.",
    responses={
        200: examples.response("The job as it stands now.", examples.CANCELLED_JOB),
        **refusals(no_such_job=_MISSING),
    },
)
def cancel_job(job_id: JobId, services: ServicesDep) -> JobBody:
    return JobBody.model_validate(services.mover.cancel(job_id), from_attributes=True)


@router.post(
    "/{job_id}/pause",
    summary="Pause a job",
    description="A waiting job is held at once. A running one stops at the next place where nothing is lost (rows "
    "written, a checkpoint, the end of a stage) and frees its worker. It is then `queued` and `waits_for` is `resume`. "
    "Pausing it again changes nothing; a job that is held for review stays so.",
    responses={
        200: examples.response("The job as it stands now.", row_examples.PAUSING_JOB),
        **refusals(
            no_such_job=_MISSING,
            ended=Conflict("job job-1 is succeeded: there is nothing to pause", param="status"),
        ),
    },
)
def pause_job(job_id: JobId, services: ServicesDep) -> JobBody:
    return JobBody.model_validate(services.mover.pause(job_id), from_attributes=True)


@router.post(
    "/{job_id}/resume",
    summary="Let a job go on",
    description="One that is paused goes on where it was and ends with the same adapter as if it had not been. A pause "
    "that has not happened yet is taken back. One that is held for review goes on with its rows as they are now.",
    responses={
        200: examples.response("The job as it stands now.", examples.QUEUED_JOB),
        **refusals(
            no_such_job=_MISSING,
            not_paused=Conflict("job job-1 is running and was not paused: it goes on by itself", param="status"),
            nothing_left=Conflict(
                "all 62 rows of dataset are deleted: restore some, or cancel job job-1", param="rows"
            ),
            changed_meanwhile=Conflict(
                "rows of dataset came or changed this moment: look at them, then resume", param="rows"
            ),
        ),
    },
)
def resume_job(job_id: JobId, services: ServicesDep) -> JobBody:
    return JobBody.model_validate(services.mover.resume(job_id), from_attributes=True)


@router.post(
    "/{job_id}/retry",
    summary="Try a job again",
    description="A failed or cancelled job is queued again and goes on at the first stage that has not left an "
    "artifact. One that was cancelled while it was held for review is held again.",
    responses={
        200: examples.response("The job as it stands now.", row_examples.RETRIED_JOB),
        **refusals(
            no_such_job=_MISSING,
            not_ended=Conflict("job job-1 is running: only a failed or cancelled one is tried again", param="status"),
        ),
    },
)
def retry_job(job_id: JobId, services: ServicesDep) -> JobBody:
    return JobBody.model_validate(services.mover.retry(job_id), from_attributes=True)
