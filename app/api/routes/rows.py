"""/jobs/{job_id}/rows: the rows of a dataset, looked at and changed while their job waits for review."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query

from app.api import examples, row_examples
from app.api.deps import ServicesDep
from app.api.schemas.errors import INVALID_QUERY, refusals
from app.api.schemas.rows import RowBody, RowChanges, RowPageBody
from app.core.errors import Conflict, InvalidInput, NotFound, Problem

router = APIRouter(prefix="/jobs/{job_id}/rows", tags=["jobs"])

_LARGEST = 2**31 - 1  # of a number in the table
JobId = Annotated[str, Path(description="The job's id.", examples=[examples.JOB_ID])]
Index = Annotated[
    int, Path(ge=0, le=_LARGEST, description="The row's number in the dataset as it was made.", examples=[7])
]
Stage = Annotated[
    str | None,
    Query(
        description="Of several datasets (rounds, sizes), which one; left out: the one that is held, that the expert "
        "learned, or the newest.",
        examples=["dataset"],
    ),
]
_MISSING = NotFound("there is no job 'job-1'", param="job_id")
_NOT_YET = NotFound("job job-1 has no dataset yet: it is queued", param="job_id")
_NO_ROW = NotFound("dataset of job job-1 has 62 rows, 0 to 61; none is 900", param="index")
_NOT_HELD = Conflict("rows can be changed only while their job waits for review; job job-1 is running", param="job_id")
_LEARNED = Conflict("job job-1 holds dataset-2 for review: the rows of dataset are learned", param="stage")
_BAD_INDEX = InvalidInput([Problem("index", "Input should be greater than or equal to 0", source="path")])


@router.get(
    "",
    summary="Look at a dataset's rows",
    description="Rows in order, with what people changed: also those that are deleted. They can be looked at in any "
    "job that has made a dataset, and changed in one that waits for review (`review` in the recipe).",
    responses={
        200: examples.response("A page of rows.", row_examples.ROWS),
        **refusals(no_such_job=_MISSING, not_yet=_NOT_YET, bad_limit=INVALID_QUERY),
    },
)
def list_rows(
    job_id: JobId,
    services: ServicesDep,
    stage: Stage = None,
    after: Annotated[int, Query(ge=-1, le=_LARGEST, description="The last number you saw.", examples=[6])] = -1,
    limit: Annotated[int, Query(ge=1, le=1000, description="Rows a page.", examples=[100])] = 100,
) -> RowPageBody:
    page = services.rows.page(job_id, stage=stage, after=after, limit=limit)
    return RowPageBody.model_validate(page, from_attributes=True)


@router.get(
    "/{index}",
    summary="Look at one row",
    description="The row with the texts that will be learned; where it comes from says GET "
    "/jobs/{job_id}/dataset/{row}, which also takes the row's id.",
    responses={
        200: examples.response("The row.", row_examples.ROW),
        **refusals(no_such_job=_MISSING, not_yet=_NOT_YET, no_such_row=_NO_ROW, bad_index=_BAD_INDEX),
    },
)
def get_row(job_id: JobId, index: Index, services: ServicesDep, stage: Stage = None) -> RowBody:
    return RowBody.model_validate(services.rows.row(job_id, index, stage=stage), from_attributes=True)


@router.patch(
    "/{index}",
    summary="Change a row",
    description="While its job waits for review. A text is checked like a seed's, and a row may not hold what the "
    "expert is judged by. The texts it was made with again are no change. It is learned when the job is resumed.",
    responses={
        200: examples.response("The row as it stands now.", row_examples.EDITED_ROW),
        **refusals(
            no_such_job=_MISSING,
            no_such_row=_NO_ROW,
            not_held=_NOT_HELD,
            learned_before=_LEARNED,
            deleted=Conflict("row 7 is deleted: restore it, then change it", param="index"),
            empty=InvalidInput([Problem("output", "is empty", source="body")]),
            contaminated=InvalidInput(
                [
                    Problem(
                        "input",
                        "contamination: it has ROUGE-L 0.812 with item b371a0f25c5e9d04, which the expert is judged by",
                        source="body",
                    )
                ]
            ),
        ),
    },
)
def change_row(
    job_id: JobId,
    index: Index,
    services: ServicesDep,
    body: Annotated[RowChanges, Body(openapi_examples={"answer": {"value": row_examples.CHANGES}})],
    stage: Stage = None,
) -> RowBody:
    changes = body.model_dump(exclude_unset=True)
    return RowBody.model_validate(services.review.edit(job_id, index, changes, stage=stage), from_attributes=True)


@router.delete(
    "/{index}",
    summary="Delete a row",
    description="While its job waits for review: the row will not be learned. Deleting it again changes nothing; until "
    "the job is resumed it can be restored.",
    responses={
        200: examples.response("The row as it stands now.", row_examples.DELETED_ROW),
        **refusals(
            no_such_job=_MISSING,
            no_such_row=_NO_ROW,
            not_held=_NOT_HELD,
            learned_before=_LEARNED,
            bad_index=_BAD_INDEX,
        ),
    },
)
def delete_row(job_id: JobId, index: Index, services: ServicesDep, stage: Stage = None) -> RowBody:
    return RowBody.model_validate(services.review.delete(job_id, index, stage=stage), from_attributes=True)


@router.post(
    "/{index}/restore",
    summary="Restore a row",
    description="While its job waits for review: the row is as it was made again, whatever was done to it.",
    responses={
        200: examples.response("The row as it stands now.", row_examples.ROW),
        **refusals(
            no_such_job=_MISSING,
            no_such_row=_NO_ROW,
            not_held=_NOT_HELD,
            learned_before=_LEARNED,
            bad_index=_BAD_INDEX,
        ),
    },
)
def restore_row(job_id: JobId, index: Index, services: ServicesDep, stage: Stage = None) -> RowBody:
    return RowBody.model_validate(services.review.restore(job_id, index, stage=stage), from_attributes=True)
