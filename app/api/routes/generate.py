"""POST /generate: ask an expert, or the bare base."""

from __future__ import annotations

from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Body, Query, Request, Response

from app.api import examples
from app.api.deps import ServicesDep
from app.api.schemas.errors import refusals
from app.api.schemas.generate import DomainQuery, GenerateBody, GenerateRequest, Timings, Usage
from app.api.waiting import CallerLeft, result_or_left
from app.core.errors import AdapterRefused, InvalidInput, NotReady, Problem, SelfspecError, TooLarge, UnknownDomain
from app.services.container import Services
from app.services.generate import MAX_TRIES, Answer, Question, was_evicted

router = APIRouter(tags=["generate"])

ADAPTER_HEADER = "X-Selfspec-Adapter"
BARE_BASE = "none"  # the header's value when no adapter answered
_THREADS = 16  # at once resolving and attaching; apart from the pool of the other routes, which must stay free


@router.post(
    "/generate",
    summary="Ask an expert",
    description="Answers with the domain's expert, or with the bare base if no domain is named. A domain without an "
    "expert is refused; the base never answers in an expert's place.",
    response_model=GenerateBody,
    responses={
        200: {
            **examples.response(
                "The answer.", examples.ANSWER, X_Selfspec_Adapter="Id of the adapter that computed it, or `none`."
            ),
            "content": {
                "application/json": {
                    "examples": {"expert": {"value": examples.ANSWER}, "base": {"value": examples.BASE_ANSWER}}
                }
            },
        },
        **refusals(
            unknown_domain=UnknownDomain("law", ["biomedicine", "finance"]),
            wrong_base=AdapterRefused("finance@v1 was made on another base", param="domain"),
            too_large=TooLarge([Problem("body", "larger than 33,554,432 bytes")]),
            faults=InvalidInput([Problem("temperature", "Input should be less than or equal to 2", source="body")]),
            loading=NotReady("the base is still loading"),
        ),
    },
)
async def generate(
    request: Request,
    response: Response,
    services: ServicesDep,
    query: Annotated[DomainQuery, Query()],
    body: Annotated[
        GenerateRequest, Body(openapi_examples={"headline": {"summary": "A headline", "value": examples.QUESTION}})
    ],
) -> GenerateBody | Response:
    question = Question(**{**body.model_dump(), "input": body.input or "", "stop": tuple(body.stop)})
    try:
        answer = await _ask(request, services, question, query.domain)
    except CallerLeft:
        return Response(status_code=499)  # nobody reads it
    response.headers[ADAPTER_HEADER] = answer.completion.adapter or BARE_BASE
    return _body(answer)


async def _ask(request: Request, services: Services, question: Question, domain: str | None) -> Answer:
    """Asks again if the adapter lost its slot to another between being attached and being used."""
    limiter = _limiter(request)
    for _ in range(MAX_TRIES):
        expert, future = await to_thread.run_sync(
            lambda: services.generator.begin(question, domain=domain), limiter=limiter
        )
        try:
            return services.generator.finish(expert, await result_or_left(request, future))
        except SelfspecError as error:
            if not was_evicted(error):
                raise
    raise NotReady("more experts are asked at once than there are slots (SELFSPEC_ADAPTER_SLOTS); try again")


def _limiter(request: Request) -> CapacityLimiter:
    """One for each application, made on its event loop."""
    state = request.app.state
    if not hasattr(state, "generate_limiter"):
        state.generate_limiter = CapacityLimiter(_THREADS)
    limiter: CapacityLimiter = state.generate_limiter
    return limiter


def _body(answer: Answer) -> GenerateBody:
    completion = answer.completion
    return GenerateBody(
        text=completion.text,
        domain=answer.expert.domain,
        adapter=completion.adapter,
        adapter_name=answer.expert.name,
        base=answer.base,
        finish_reason=completion.finish_reason,
        usage=Usage(
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            total_tokens=completion.prompt_tokens + completion.completion_tokens,
        ),
        timings=Timings(queue_seconds=completion.queue_seconds, seconds=completion.seconds),
    )
