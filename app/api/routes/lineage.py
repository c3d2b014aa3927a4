"""/jobs/{job_id}/dataset/{row}: where one training row comes from."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from app.api import examples, seed_examples
from app.api.deps import ServicesDep
from app.api.schemas.errors import refusals
from app.api.schemas.lineage import RowLineageBody
from app.core.errors import NotFound

router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.get(
    "/{job_id}/dataset/{row}",
    summary="Follow one training row",
    description="The row with every filter's verdict, the prompt and raw reply that its instruction was read from, "
    "the prompt and raw answer of its response, the seeds that were shown, the passages with their weights, who wrote "
    "both, and the artifacts it lies in.",
    responses={
        200: examples.response("The row and all that led to it.", seed_examples.ROW),
        **refusals(
            no_such_job=NotFound("there is no job 'job-1'", param="job_id"),
            no_such_row=NotFound(
                f"the dataset of job {examples.JOB_ID} has 62 rows, 0 to 61; none is 900", param="row"
            ),
            not_yet=NotFound("job job-1 has no dataset yet: it is queued", param="job_id"),
        ),
    },
)
def get_row(
    job_id: Annotated[str, Path(description="The job's id.", examples=[examples.JOB_ID])],
    row: Annotated[str, Path(description="The row's number, from 0, or its id.", examples=["7"])],
    services: ServicesDep,
    stage: Annotated[
        str | None,
        Query(
            description="Of several datasets (rounds, sizes), which one; left out: the one the expert learned.",
            examples=["dataset"],
        ),
    ] = None,
) -> RowLineageBody:
    return RowLineageBody.model_validate(services.lineage.row(job_id, row, stage=stage), from_attributes=True)
