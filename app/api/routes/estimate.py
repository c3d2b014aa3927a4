"""POST /specialize/estimate: what a job would take."""

from __future__ import annotations

from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request

from app.api import examples
from app.api.deps import ServicesDep
from app.api.estimate_example import ESTIMATE
from app.api.openapi import REF
from app.api.schemas.errors import refusals
from app.api.schemas.estimate import EstimateBody, body_of
from app.api.schemas.specialize import FORM_SCHEMA, SpecializeRequest
from app.api.specialize_body import FORM, JSON, read_request
from app.core.errors import Conflict, InvalidInput, NotReady, Problem, TooLarge

router = APIRouter(tags=["specialize"])

DESCRIPTION = """\
Send what you would send to `POST /specialize`: the same is refused, and nothing is queued or stored. The answer tells
tokens, seconds and memory of every stage and of the whole job, how long it would wait, and whether its memory fits.

Tokens are counted on the job's own prompts and seeds. Seconds follow from what the stages of past jobs of this base
took here; where none has ended yet they are assumed from the base's size, and the answer says so.
"""
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        JSON: {
            "schema": {"$ref": REF + SpecializeRequest.__name__},
            "examples": {"finance": {"summary": "Two seeds, the quick preset", "value": examples.SPECIALIZE}},
        },
        FORM: {"schema": FORM_SCHEMA},
    },
}


@router.post(
    "/specialize/estimate",
    summary="Estimate what an expert would take",
    description=DESCRIPTION,
    responses={
        200: examples.response("The estimate.", ESTIMATE),
        **refusals(
            other_base=Conflict("this service runs base 'smollm2-135m-instruct'", param="base"),
            too_many=TooLarge([Problem("seeds", "100,000 items; at most 10,000 can be sent", source="seeds")]),
            faults=InvalidInput([Problem("output", "is empty", 23, "seeds")]),
            loading=NotReady("the base is still loading, and nothing is known of its size: ask again in a minute"),
        ),
    },
    openapi_extra={"requestBody": _BODY},
)
async def estimate_specialization(request: Request, services: ServicesDep) -> EstimateBody:
    raw = await read_request(request)
    return body_of(await to_thread.run_sync(services.estimator.estimate, raw))
