"""/jobs: how specializations stand and what they made."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import FileResponse

from app.api import examples
from app.api.deps import ServicesDep
from app.api.schemas.errors import INVALID_QUERY, refusals
from app.api.schemas.jobs import JobBody, JobPage, MetricsBody
from app.core.errors import NotFound
from app.core.states import JobStatus

router = APIRouter(prefix="/jobs", tags=["jobs"])

JobId = Annotated[str, Path(description="The job's id.", examples=[examples.JOB_ID])]
_MISSING = NotFound("there is no job 'job-1'", param="job_id")


@router.get(
    "",
    summary="List jobs",
    description="The newest first; read on with `after`.",
    responses={
        200: examples.response("A page of jobs.", {"data": [examples.JOB], "next": None}),
        **refusals(no_such_job=_MISSING, bad_limit=INVALID_QUERY),
    },
)
def list_jobs(
    services: ServicesDep,
    after: Annotated[
        str | None, Query(description="The last id of the page before.", examples=[examples.JOB_ID])
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Jobs a page.", examples=[20])] = 20,
    domain: Annotated[str | None, Query(description="Of this domain only.", examples=["finance"])] = None,
    status: Annotated[JobStatus | None, Query(description="With this status only.", examples=["running"])] = None,
) -> JobPage:
    page = services.jobs.list(after=after, limit=limit, domain=domain, status=status)
    return JobPage.model_validate({"data": page.items, "next": page.next}, from_attributes=True)


@router.get(
    "/{job_id}",
    summary="See one job",
    description="Status, the stage at work, how far every stage is and how long it will take; if it failed, why.",
    responses={200: examples.response("The job.", examples.JOB), **refusals(no_such_job=_MISSING)},
)
def get_job(job_id: JobId, services: ServicesDep) -> JobBody:
    return JobBody.model_validate(services.jobs.get(job_id), from_attributes=True)


@router.get(
    "/{job_id}/dataset",
    summary="Download the training rows",
    description="JSONL: every row the adapter learns from, with where it came from (seeds, reply, writer).",
    response_class=FileResponse,
    responses={
        200: examples.response("One JSON object a line.", examples.DATASET_ROW, kind="application/jsonl"),
        **refusals(
            no_such_job=_MISSING, not_yet=NotFound("job job-1 has no dataset yet: it is queued", param="job_id")
        ),
    },
)
def get_dataset(job_id: JobId, services: ServicesDep) -> FileResponse:
    path = services.jobs.dataset(job_id)
    return FileResponse(path, media_type="application/jsonl", filename=f"{job_id}.jsonl")


@router.get(
    "/{job_id}/metrics",
    summary="Compare the expert with all others",
    description="Token F1 and ROUGE-L of the expert and of everybody it is compared with, on the same held-out items, "
    "by task and over all, with 95 % intervals of the difference; which items those are, worst and best over the "
    "numbers of demonstrations, and what was forgotten.",
    responses={
        200: examples.response("The figures.", examples.METRICS),
        **refusals(
            no_such_job=_MISSING, not_yet=NotFound("job job-1 has no metrics yet: it is queued", param="job_id")
        ),
    },
)
def get_metrics(job_id: JobId, services: ServicesDep) -> MetricsBody:
    found = services.jobs.metrics(job_id)
    body = {
        "job": job_id,
        "metrics": found.metrics,
        "about": found.report and found.report.about,
        "over_shots": found.report.over_shots if found.report else (),
        "off_domain": found.report and found.report.off_domain,
    }
    return MetricsBody.model_validate(body, from_attributes=True)
