"""/seeds: examples examined before a job learns from them, and what came of one."""

from __future__ import annotations

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request

from app.api import examples, seed_examples
from app.api.deps import ServicesDep
from app.api.openapi import REF
from app.api.schemas.errors import refusals
from app.api.schemas.seeds import SeedReportBody, SeedRowsBody
from app.api.schemas.specialize import DOCTOR_FORM_SCHEMA, DoctorRequest
from app.api.specialize_body import FORM, JSON, read_request
from app.core.errors import InvalidInput, NotFound, NotReady, Overloaded, Problem, TooLarge
from app.services.doctor import MAX_TRIAL_PROMPTS

router = APIRouter(prefix="/seeds", tags=["seeds"])

DESCRIPTION = """\
Send what you would send to `POST /specialize`; nothing is stored. The report tells counts and balance of the tasks,
how often each label stands in the sets, duplicates, near-duplicates (ROUGE-L above 0.9 within a task), leakage between
seeds and evaluation, lengths in tokens, and everything that `POST /specialize` would refuse, each with a remedy.
Whatever the content, the answer is the report; only a request that cannot be read is refused.

`dry_run` sends that many of the job's own prompts to the base and answers some of what it wrote: the yield, what was
rejected and why with samples, and what the recipe would reach in examples and seconds. The answer comes when the base
has written all that.
"""
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        JSON: {
            "schema": {"$ref": REF + DoctorRequest.__name__},
            "examples": {"finance": {"summary": "Two seeds, one evaluation item", "value": seed_examples.EXAMINE}},
        },
        FORM: {"schema": DOCTOR_FORM_SCHEMA},
    },
}


@router.post(
    "/doctor",
    summary="Examine labelled examples",
    description=DESCRIPTION,
    responses={
        200: examples.response("The report.", seed_examples.REPORT),
        **refusals(
            unreadable=InvalidInput([Problem("json", "broken JSON: Expecting ',' delimiter (line 1, column 31)")]),
            no_domain=InvalidInput([Problem("domain", "is missing: the prompts of a dry run name it")]),
            too_many=TooLarge([Problem("seeds", "100,000 items; at most 10,000 can be sent", source="seeds")]),
            busy=Overloaded("64 requests wait; ask again later"),
            loading=NotReady("the base is still loading; a dry run needs it: ask again in a minute"),
        ),
    },
    openapi_extra={"requestBody": _BODY},
)
async def examine_seeds(
    request: Request,
    services: ServicesDep,
    dry_run: Annotated[
        int | None,
        Query(ge=1, le=MAX_TRIAL_PROMPTS, description="Prompts to try on the base; left out: none.", examples=[10]),
    ] = None,
) -> SeedReportBody:
    raw = await read_request(request)
    report = await to_thread.run_sync(lambda: services.doctor.examine(raw, num_prompts=dry_run or 0))
    return SeedReportBody.model_validate(report, from_attributes=True)


@router.get(
    "/{seed_id}/rows",
    summary="Follow a seed",
    description="The jobs it was sent to, whether it was held out there, the versions that learned from it, and the "
    "training rows written from prompts that showed it (with the seed's own row), job by job; read on with `after`.",
    responses={
        200: examples.response("What came of it.", seed_examples.SEED_ROWS),
        **refusals(
            no_such_seed=NotFound("there is no seed '0000000000000000' that was sent to a job", param="seed_id"),
            bad_after=InvalidInput([Problem("after", "is no `next` of this list", source="query")]),
        ),
    },
)
def list_seed_rows(
    seed_id: Annotated[
        str, Path(description="As it stands in rows of datasets (`seed_ids`).", examples=[seed_examples.SEED_ID])
    ],
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=1000, description="Rows a page.", examples=[100])] = 100,
    after: Annotated[
        str | None, Query(description="`next` of the page before.", examples=[f"{examples.JOB_ID}:7"])
    ] = None,
) -> SeedRowsBody:
    return SeedRowsBody.model_validate(
        services.lineage.seed_rows(seed_id, after=after, limit=limit), from_attributes=True
    )
