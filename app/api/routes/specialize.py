"""POST /specialize: seeds in, a job out."""

from __future__ import annotations

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Header, Request, Response

from app.api import examples, seed_examples
from app.api.deps import ServicesDep
from app.api.openapi import REF
from app.api.schemas.errors import refusals
from app.api.schemas.jobs import JobBody
from app.api.schemas.specialize import FORM_SCHEMA, SpecializeRequest
from app.api.specialize_body import FORM, JSON, read_request
from app.core.errors import Conflict, InvalidInput, Problem, TooLarge
from app.services.views import JobView

router = APIRouter(tags=["specialize"])

DESCRIPTION = """\
Turns labelled examples of a domain into an expert. The answer is the job that does it; follow it at its `Location`.

Send JSON, or a form with the examples as a file: JSONL, one JSON list, or CSV with a header line
(`task, instruction, input, output`; UTF-8). `references` of an example are further right answers, a JSON list also in
CSV; keys `id`, `category` and `domain` may be there and are not used. A JSON line may also be a chat,
`{"messages": [system?, user, assistant], "task"?: …}`, as OpenAI's fine-tuning has it. Without `evaluation`, part of
each task's seeds is held out and never learned. `labelled` rows are only compared with.

With `domains` in place of `seeds` (JSON only), one expert learns several domains together.

Everything is checked before anything is stored, and a refusal tells every fault with its line, field and reason.
What may harm the expert though it is allowed stands in the job's event `seeds_examined`; `POST /seeds/doctor` tells it
before.
"""
_PROBLEMS = [
    Problem("json", "broken JSON: Expecting ',' delimiter (column 31)", 17, "seeds"),
    Problem("output", "is empty", 23, "seeds"),
    Problem("recipe.epoch", "unknown recipe key; there are: preset, seed, …"),
]
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        JSON: {
            "schema": {"$ref": REF + SpecializeRequest.__name__},
            "examples": {
                "finance": {"summary": "Two seeds, the quick preset", "value": examples.SPECIALIZE},
                "several": {"summary": "Two domains in one expert", "value": seed_examples.SEVERAL},
            },
        },
        FORM: {"schema": FORM_SCHEMA},
    },
}


@router.post(
    "/specialize",
    status_code=202,
    summary="Make an expert for a domain",
    description=DESCRIPTION,
    response_model=JobBody,
    responses={
        202: examples.response(
            "The job was queued.",
            examples.QUEUED_JOB,
            Location="Where the job can be followed.",
            Idempotent_Replayed="`true` if an earlier request with this key made the job.",
        ),
        **refusals(
            other_request=Conflict(f"this Idempotency-Key made job {examples.JOB_ID} from another request"),
            other_base=Conflict("this service runs base 'smollm2-135m-instruct'", param="base"),
            too_many=TooLarge([Problem("seeds", "100,000 items; at most 10,000 can be sent", source="seeds")]),
            faults=InvalidInput(_PROBLEMS),
        ),
    },
    openapi_extra={"requestBody": _BODY},
)
async def specialize(
    request: Request,
    response: Response,
    services: ServicesDep,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Any text of your choice: repeating a request with the same key gives the same job.",
            examples=["finance-2026-01-05"],
        ),
    ] = None,
) -> JobView:
    raw = await read_request(request)
    accepted = await to_thread.run_sync(lambda: services.specializer.start(raw, idempotency_key=idempotency_key))
    response.headers["Location"] = f"/jobs/{accepted.job_id}"
    if accepted.is_repeat:
        response.headers["Idempotent-Replayed"] = "true"
    return await to_thread.run_sync(services.jobs.get, accepted.job_id)
