"""/v1/fine_tuning/jobs: OpenAI's way to order an expert and to follow its making."""

from __future__ import annotations

import re
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Body, Header, Path, Query, Request, Response

from app.api import examples, tuning_examples
from app.api.deps import ServicesDep
from app.api.openai_errors import tuning_refusals
from app.api.schemas.errors import INVALID_QUERY
from app.api.schemas.openai_tuning import CheckpointList, TuningBody, TuningEventList, TuningList, TuningRequest
from app.api.tuning_shapes import checkpoint_body, event_body, order_of, tuning_body
from app.core.errors import Conflict, InvalidInput, NotFound, Problem

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["openai"])

_MISSING = NotFound("there is no job 'job-1'", param="job_id")
_ENDED = Conflict(f"job {examples.JOB_ID} is succeeded: there is nothing to pause", param="status")
_METADATA = re.compile(r"metadata\[(?P<name>.*)\]", re.DOTALL)
_METADATA_QUERY: dict[str, Any] = {
    "name": "metadata",
    "in": "query",
    "style": "deepObject",
    "explode": True,
    "description": "Only jobs with these pairs: `metadata[team]=research`. `metadata=null`: only jobs without any.",
    "schema": {"type": "object", "additionalProperties": {"type": "string"}, "examples": [{"team": "research"}]},
}

JobId = Annotated[str, Path(description="The job's id.", examples=[examples.JOB_ID])]
Limit = Annotated[int, Query(ge=1, le=100, description="Items a page.", examples=[20])]


def _documented(about: str, example: Any, **refused: Any) -> dict[int | str, dict[str, Any]]:
    return {200: examples.response(about, example), **tuning_refusals(**refused)}


@router.post(
    "",
    summary="Order a fine-tuning",
    description="Makes the job that POST /specialize makes: the base writes more examples like those of the training "
    "file, learns all of them, is judged, and is served as the domain that `suffix` names. Chats and seeds are read "
    "alike.",
    responses=_documented(
        "The job was queued.",
        tuning_examples.QUEUED_TUNING,
        faults=InvalidInput([Problem("training_file", "there is no file 'file-1'; POST /v1/files makes one")]),
        other_request=Conflict(f"this Idempotency-Key made job {examples.JOB_ID} from another request"),
    ),
)
async def create_job(
    services: ServicesDep,
    body: Annotated[
        TuningRequest, Body(openapi_examples={"finance": {"summary": "An expert", "value": tuning_examples.ORDER}})
    ],
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(description="Repeating a request with the same key gives the same job.", examples=["finance-1"]),
    ] = None,
) -> TuningBody:
    order = order_of(body)
    accepted = await to_thread.run_sync(lambda: services.tuner.create(order, idempotency_key=idempotency_key))
    if accepted.is_repeat:
        response.headers["Idempotent-Replayed"] = "true"
    return tuning_body(await to_thread.run_sync(services.tuner.get, accepted.job_id))


@router.get(
    "",
    summary="List fine-tunings",
    description="All jobs, the newest first, those of POST /specialize too; read on with `after`.",
    responses=_documented("A page of jobs.", tuning_examples.TUNINGS, no_such_job=_MISSING, bad_limit=INVALID_QUERY),
    openapi_extra={"parameters": [_METADATA_QUERY]},
)
def list_jobs(
    request: Request,
    services: ServicesDep,
    after: Annotated[
        str | None, Query(description="The last id of the page before.", examples=[examples.JOB_ID])
    ] = None,
    limit: Limit = 20,
) -> TuningList:
    page = services.tuner.list(after=after, limit=limit, labels=_labels(request))
    return TuningList(data=[tuning_body(view) for view in page.items], has_more=page.next is not None)


@router.get(
    "/{fine_tuning_job_id}",
    summary="See one fine-tuning",
    description="In OpenAI's words; under `selfspec` in ours. Jobs of POST /specialize can be seen here too.",
    responses=_documented("The job.", tuning_examples.TUNING, no_such_job=_MISSING),
)
def get_job(fine_tuning_job_id: JobId, services: ServicesDep) -> TuningBody:
    return tuning_body(services.tuner.get(fine_tuning_job_id))


@router.post(
    "/{fine_tuning_job_id}/cancel",
    summary="Cancel a fine-tuning",
    description="A waiting job ends at once, a running one when its worker has seen it; an ended one stays as it is.",
    responses=_documented(
        "The job as it stands now.",
        tuning_examples.CANCELLED_TUNING,
        no_such_job=_MISSING,
    ),
)
def cancel_job(fine_tuning_job_id: JobId, services: ServicesDep) -> TuningBody:
    services.mover.cancel(fine_tuning_job_id)
    return tuning_body(services.tuner.get(fine_tuning_job_id))


@router.post(
    "/{fine_tuning_job_id}/pause",
    summary="Pause a fine-tuning",
    description="A waiting job is held at once, a running one where nothing is lost. It is `queued` then, with "
    "`selfspec.waits_for` resume.",
    responses=_documented(
        "The job as it stands now.",
        tuning_examples.PAUSING_TUNING,
        no_such_job=_MISSING,
        ended=_ENDED,
    ),
)
def pause_job(fine_tuning_job_id: JobId, services: ServicesDep) -> TuningBody:
    services.mover.pause(fine_tuning_job_id)
    return tuning_body(services.tuner.get(fine_tuning_job_id))


@router.post(
    "/{fine_tuning_job_id}/resume",
    summary="Resume a fine-tuning",
    description="Lets a job that is paused, or held for review, go on.",
    responses=_documented(
        "The job as it stands now.",
        tuning_examples.QUEUED_TUNING,
        no_such_job=_MISSING,
        not_paused=Conflict(f"job {examples.JOB_ID} is running and was not paused", param="status"),
    ),
)
def resume_job(fine_tuning_job_id: JobId, services: ServicesDep) -> TuningBody:
    services.mover.resume(fine_tuning_job_id)
    return tuning_body(services.tuner.get(fine_tuning_job_id))


@router.get(
    "/{fine_tuning_job_id}/events",
    summary="Read what happened",
    description="The newest first; read on with `after`. An optimizer step is an event of type metrics.",
    responses=_documented("A page of events.", tuning_examples.EVENTS, no_such_job=_MISSING, bad_limit=INVALID_QUERY),
)
def list_events(
    fine_tuning_job_id: JobId,
    services: ServicesDep,
    after: Annotated[
        str | None, Query(description="The last id of the page before.", examples=[tuning_examples.EVENT["id"]])
    ] = None,
    limit: Limit = 20,
) -> TuningEventList:
    page = services.tuner.events(fine_tuning_job_id, after=after, limit=limit)
    return TuningEventList(data=[event_body(event) for event in page.items], has_more=page.next is not None)


@router.get(
    "/{fine_tuning_job_id}/checkpoints",
    summary="See what can be asked",
    description="The job's expert, once there is one. Its name stays valid whatever the domain serves later.",
    responses=_documented(
        "The checkpoints.", tuning_examples.CHECKPOINTS, no_such_job=_MISSING, bad_limit=INVALID_QUERY
    ),
)
def list_checkpoints(
    fine_tuning_job_id: JobId,
    services: ServicesDep,
    after: Annotated[
        str | None, Query(description="The last id of the page before.", examples=[tuning_examples.CHECKPOINT["id"]])
    ] = None,
    limit: Limit = 10,
) -> CheckpointList:
    data = [checkpoint_body(view) for view in services.tuner.checkpoints(fine_tuning_job_id, after=after)][:limit]
    return CheckpointList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=False,
    )


def _labels(request: Request) -> dict[str, str] | None:
    """The pairs to look for; None: only jobs without any are wanted."""
    wanted: dict[str, str] = {}
    is_null = False
    for key, value in request.query_params.multi_items():
        if match := _METADATA.fullmatch(key):
            wanted[match["name"]] = value
        elif key == "metadata" and value == "null":
            is_null = True
        elif key.startswith("metadata"):
            raise InvalidInput([Problem(key, "write metadata[name]=value, or metadata=null", source="query")])
    if is_null and wanted:
        raise InvalidInput([Problem("metadata", "null goes with no pairs", source="query")])
    return None if is_null else wanted
