"""GET /health, GET /ready: for whoever watches the process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter
from fastapi.responses import JSONResponse

from app.api import examples
from app.api.deps import ServicesDep
from app.api.schemas.errors import refusals
from app.api.schemas.health import CheckBody, HealthBody, ReadyBody
from app.services.readiness import Check

router = APIRouter(tags=["health"])

CHECK_SECONDS = 5.0


@router.get(
    "/health",
    summary="Does the process live?",
    description="Answers while the process can answer at all; asks nothing of database, broker or base.",
    response_model=HealthBody,
    responses={200: examples.response("It lives.", {"status": "ok"}), **refusals()},
)
async def health() -> HealthBody:
    return HealthBody(status="ok")


@router.get(
    "/ready",
    summary="Can the service do its work?",
    description="Checks the database, the broker, the disk, whether the base is loaded and warm, and that the process "
    "is not about to end; says of each how it is.",
    response_model=ReadyBody,
    responses={
        200: examples.response("Everything works.", examples.READY),
        503: {"model": ReadyBody, **examples.response("Something is missing; `checks` says what.", examples.NOT_READY)},
        **refusals(),
    },
)
async def ready(services: ServicesDep) -> JSONResponse:
    questions = services.readiness.checks()
    answers = await asyncio.gather(*(_ask(question) for question in questions.values()))
    body = ReadyBody(ready=all(answer.ok for answer in answers), checks=dict(zip(questions, answers, strict=True)))
    return JSONResponse(body.model_dump(), status_code=200 if body.ready else 503)


async def _ask(question: Callable[[], Check]) -> CheckBody:
    """A part that does not answer in time is not ready; its thread is left to end by itself."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            check = await to_thread.run_sync(question, abandon_on_cancel=True, limiter=CapacityLimiter(1))
    except TimeoutError:
        return CheckBody(ok=False, detail=f"no answer within {CHECK_SECONDS:g} seconds")
    return CheckBody(ok=check.ok, detail=check.detail)
