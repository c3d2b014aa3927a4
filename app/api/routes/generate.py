"""POST /generate: ask an expert, several side by side, or the bare base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Body, Query, Request, Response
from pydantic import BaseModel, Discriminator, Tag

from app.api import examples, generate_stream
from app.api.answering import Answers, answer_all, stream
from app.api.deps import ServicesDep
from app.api.errors import LORAX, NATIVE
from app.api.schemas.errors import refusals
from app.api.schemas.generate import MAX_ANSWERS, GenerateBodies, GenerateBody, GenerateQuery, GenerateRequest
from app.api.schemas.lorax import LoraxBody, LoraxRequest
from app.api.sse import EventStream
from app.api.waiting import CallerLeft
from app.core.errors import (
    AdapterRefused,
    DeadlineExceeded,
    InvalidInput,
    NotReady,
    Overloaded,
    Problem,
    TooLarge,
    UnknownDomain,
)
from app.services.container import Services
from app.services.generate import Expert, Target

router = APIRouter(tags=["generate"])

ADAPTER_HEADER = "X-Selfspec-Adapter"
ADAPTER_ID_HEADER = "X-Selfspec-Adapter-Id"
BARE_BASE = "none"  # the headers' value when no adapter answered

AnyRequest = Annotated[
    Annotated[GenerateRequest, Tag(NATIVE)] | Annotated[LoraxRequest, Tag(LORAX)],
    Discriminator(lambda body: LORAX if isinstance(body, dict) and "inputs" in body else NATIVE),
]


@router.post(
    "/generate",
    summary="Ask an expert",
    description="Answers with the domain's expert, or with the bare base if no expert is named. A domain without an "
    "expert is refused; the base never answers in an expert's place. Several domains, or several adapters, are asked "
    "in one batch. LoRAX's request is understood too, and answered in LoRAX's shape.",
    response_model=GenerateBody | GenerateBodies | LoraxBody,
    responses={
        200: {
            **examples.response(
                "The answer; several (n, or several experts) in a list. With stream, server-sent events.",
                examples.ANSWER,
                X_Selfspec_Adapter="The version that answered, as domain@version, or `none`; of several, a list.",
                X_Selfspec_Adapter_Id="The same by id.",
            ),
            "content": {
                "application/json": {
                    "examples": {
                        "expert": {"value": examples.ANSWER},
                        "base": {"value": examples.BASE_ANSWER},
                        "several": {"value": {"answers": [examples.ANSWER, examples.BASE_ANSWER]}},
                        "lorax": {"value": examples.LORAX_ANSWER},
                    }
                },
                "text/event-stream": {"example": examples.STREAMED},
            },
        },
        **refusals(
            unknown_domain=UnknownDomain("law", ["biomedicine", "finance"]),
            wrong_base=AdapterRefused("finance@v1 was made on another base", param="domain"),
            too_large=TooLarge([Problem("body", "larger than 33,554,432 bytes")]),
            faults=InvalidInput([Problem("temperature", "Input should be less than or equal to 2", source="body")]),
            too_long=InvalidInput(
                [
                    Problem(
                        "instruction", "9,001 tokens of prompt and 256 new ones do not fit the base, which reads 8,192"
                    )
                ]
            ),
            overloaded=Overloaded("1,024 requests wait; ask again later"),
            loading=NotReady("the base is still loading"),
            too_late=DeadlineExceeded("nothing was written in 0.5 s"),
        ),
    },
)
async def generate(
    request: Request,
    services: ServicesDep,
    query: Annotated[GenerateQuery, Query()],
    body: Annotated[
        AnyRequest,
        Body(
            openapi_examples={
                "headline": {"summary": "A headline", "value": examples.QUESTION},
                "lorax": {"summary": "As LoRAX's clients ask", "value": examples.LORAX_QUESTION},
            }
        ),
    ],
) -> Response:
    try:
        if isinstance(body, LoraxRequest):
            return await _as_lorax(request, services, query, body)
        targets = _targets(query, body.adapter_id)
        if body.stream:
            return await _streamed(request, services, body, targets)
        return await _whole(request, services, body, targets)
    except CallerLeft:
        return Response(status_code=499)  # nobody reads it


async def _whole(request: Request, services: Services, body: GenerateRequest, targets: Sequence[Target]) -> Response:
    if (num_answers := body.n * len(targets)) > MAX_ANSWERS:
        raise InvalidInput([Problem("n", f"asks for {num_answers} answers; at most {MAX_ANSWERS}", source="body")])
    told = await answer_all(request, services, [body.question()], body.drawing(), targets)
    bodies = [GenerateBody.of(answers, answer) for answers in told for answer in answers.answers]
    return _json(bodies[0] if len(bodies) == 1 else GenerateBodies(answers=bodies), told)


async def _streamed(request: Request, services: Services, body: GenerateRequest, targets: Sequence[Target]) -> Response:
    if len(targets) > 1:
        raise InvalidInput([Problem("stream", "one expert at a time: name one domain or adapter", source="body")])
    started = await stream(request, services, body.question(), body.drawing(), targets[0])
    return EventStream(started, generate_stream.told(started), headers=_headers([started.expert]))


async def _as_lorax(request: Request, services: Services, query: GenerateQuery, body: LoraxRequest) -> Response:
    targets = _targets(query, body.parameters.adapter_id)
    if len(targets) > 1:
        raise InvalidInput([Problem("domain", "LoRAX's shape has one answer: name one expert", source="query")])
    [answers] = await answer_all(request, services, [body.inputs], body.parameters.drawing(), targets)
    return _json(LoraxBody.of(body, answers), [answers], leave_out_none=True)


def _targets(query: GenerateQuery, adapter_id: str | None) -> list[Target]:
    """Who is asked: the domains, or the adapters, or the bare base. Raises InvalidInput if the request names both."""
    adapters = query.adapter or ([adapter_id] if adapter_id is not None else [])
    if adapter_id is not None and adapters != [adapter_id]:
        raise InvalidInput([Problem("adapter_id", "the query names another adapter", source="body")])
    if query.domain and adapters:
        raise InvalidInput([Problem("adapter", "name domains or adapters, not both", source="query")])
    domains = [Target(domain=name) for name in query.domain]
    return domains + [Target(model=name) for name in adapters] or [Target()]


def _json(body: BaseModel, told: Sequence[Answers], *, leave_out_none: bool = False) -> Response:
    content = body.model_dump_json(exclude_none=leave_out_none)
    return Response(content, media_type="application/json", headers=_headers([answers.expert for answers in told]))


def _headers(experts: Sequence[Expert]) -> dict[str, str]:
    return {
        ADAPTER_HEADER: ", ".join(expert.name or BARE_BASE for expert in experts),
        ADAPTER_ID_HEADER: ", ".join(expert.adapter or BARE_BASE for expert in experts),
    }
