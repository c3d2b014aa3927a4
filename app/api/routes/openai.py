"""OpenAI's chats and completions, answered by experts. The prompt template is the server's: see ``services.chat``."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import uuid4

from anyio import to_thread
from fastapi import APIRouter, Body, Request, Response

from app.api import answering, examples, openai_examples
from app.api.deps import ServicesDep
from app.api.openai_errors import refusals
from app.api.openai_shapes import Shape, chat_body, completion_body
from app.api.openai_stream import ChatChoices, Choices, CompletionChoices, data_lines
from app.api.routes.generate import ADAPTER_HEADER, ADAPTER_ID_HEADER, BARE_BASE
from app.api.schemas.generate import MAX_ANSWERS
from app.api.schemas.openai import ChatRequest, CompletionRequest
from app.api.schemas.openai_answers import ChatBody, CompletionBody
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
from app.services.chat import Turn, fold, split
from app.services.container import Services
from app.services.experts import Expert, Target
from app.services.generate import Drawing, Question

router = APIRouter(prefix="/v1", tags=["openai"])

_REFUSALS = refusals(
    unknown_model=UnknownDomain("law", ["biomedicine", "finance"]),
    wrong_base=AdapterRefused("finance@v1 was made on another base", param="domain"),
    too_large=TooLarge([Problem("body", "larger than 33,554,432 bytes")]),
    faults=InvalidInput([Problem("temprature", "unknown field; did you mean temperature?", source="body")]),
    too_many=Overloaded("too many requests wait; try again"),
    loading=NotReady("the base is still loading"),
    too_late=DeadlineExceeded("nothing was written within timeout_s"),
)


def _documented(answer: Any, stream: str) -> dict[int | str, dict[str, Any]]:
    success = examples.response(
        "The answer; with `stream`, its parts.",
        answer,
        X_Selfspec_Adapter="The version that answered, as domain@version, or `none`.",
        X_Selfspec_Adapter_Id="The same by id.",
    )
    success["content"]["text/event-stream"] = {"example": stream}
    return {200: success, **_REFUSALS}


@dataclass(frozen=True, slots=True)
class _Kind:
    """What tells a chat from a completion."""

    id_prefix: str
    chunk: str  # what a chunk of a stream calls itself
    whole: Shape
    choices: type[ChatChoices | CompletionChoices]


_CHAT = _Kind("chatcmpl", "chat.completion.chunk", chat_body, ChatChoices)
_COMPLETION = _Kind("cmpl", "text_completion", completion_body, CompletionChoices)


@router.post(
    "/chat/completions",
    summary="Chat with an expert",
    description="The last message is the question: its first paragraph is the instruction and the rest the input, as "
    "in a seed. System texts stand before the instruction, earlier turns before the input. An unknown `model` is "
    "refused; the base answers only if it is named.",
    response_model=ChatBody,
    responses=_documented(openai_examples.CHAT_ANSWER, openai_examples.CHAT_STREAM),
)
async def create_chat_completion(
    request: Request,
    services: ServicesDep,
    body: Annotated[
        ChatRequest,
        Body(
            openapi_examples={
                "expert": {"summary": "An expert", "value": openai_examples.CHAT},
                "base": {"summary": "The base", "value": openai_examples.BASE_CHAT},
            }
        ),
    ],
) -> Response:
    turns = [Turn("system" if one.role == "developer" else one.role, one.content) for one in body.messages]
    return await _respond(request, services, body, [Question(*fold(turns, input=body.input))], _CHAT)


@router.post(
    "/completions",
    summary="Complete a prompt",
    description="Each prompt is put into the expert's template, its first paragraph as the instruction and the rest as "
    "the input; with `raw` it is continued as it is. An unknown `model` is refused.",
    response_model=CompletionBody,
    responses=_documented(openai_examples.COMPLETION_ANSWER, openai_examples.COMPLETION_STREAM),
)
async def create_completion(
    request: Request,
    services: ServicesDep,
    body: Annotated[
        CompletionRequest,
        Body(openapi_examples={"expert": {"summary": "An expert", "value": openai_examples.COMPLETION}}),
    ],
) -> Response:
    if (num_answers := body.n * len(body.prompt)) > MAX_ANSWERS:
        raise InvalidInput([Problem("n", f"asks for {num_answers} answers; at most {MAX_ANSWERS}")])
    if body.stream and len(body.prompt) > 1:
        raise InvalidInput([Problem("stream", "takes one prompt; send the others as requests of their own")])
    prompts = [text if body.raw else Question(*split(text)) for text in body.prompt]
    return await _respond(request, services, body, prompts, _COMPLETION)


async def _respond(
    request: Request,
    services: Services,
    body: ChatRequest | CompletionRequest,
    prompts: Sequence[Question | str],
    kind: _Kind,
) -> Response:
    try:
        if body.stream:
            return await _stream(request, services, body, prompts[0], kind)
        return await _whole(request, services, body, prompts, kind)
    except CallerLeft:
        return Response(status_code=499)  # nobody reads it


async def _whole(
    request: Request,
    services: Services,
    body: ChatRequest | CompletionRequest,
    prompts: Sequence[Question | str],
    kind: _Kind,
) -> Response:
    target = Target(model=body.model)
    if len(prompts) > 1:  # a champion that changes meanwhile must not answer some of them
        expert = await to_thread.run_sync(services.generator.resolve, target)
        target = Target(model=expert.name or body.model)
    asked = await answering.answer_all(request, services, prompts, _drawing(body), [target])
    expert = asked[0].expert
    answers = kind.whole(
        asked,
        id=_new_id(kind),
        created=int(time.time()),
        model=expert.name or body.model,
        with_logprobs=body.num_logprobs is not None,
    )
    return Response(answers.model_dump_json(exclude_none=True), media_type="application/json", headers=_header(expert))


async def _stream(
    request: Request,
    services: Services,
    body: ChatRequest | CompletionRequest,
    prompt: Question | str,
    kind: _Kind,
) -> Response:
    stream = await answering.stream(request, services, prompt, _drawing(body), Target(model=body.model))
    head = {
        "id": _new_id(kind),
        "object": kind.chunk,
        "created": int(time.time()),
        "model": stream.expert.name or body.model,
    }
    choices: Choices = kind.choices(with_logprobs=body.num_logprobs is not None)
    lines = data_lines(stream, choices, head=head, include_usage=body.stream_options.include_usage)
    return EventStream(stream, lines, headers=_header(stream.expert))


def _drawing(body: ChatRequest | CompletionRequest) -> Drawing:
    return Drawing(
        max_new_tokens=body.longest,
        temperature=body.temperature,
        top_p=body.top_p,
        seed=secrets.randbelow(2**63) if body.seed is None else body.seed,
        stop=tuple(body.stop),
        logprobs=body.num_logprobs,
        schema=body.response_format.schema_text,
        ignore_end=body.ignore_eos,
        timeout_seconds=body.timeout_s,
        n=body.n,
        truncate=body.truncate,
    )


def _header(expert: Expert) -> dict[str, str]:
    return {ADAPTER_HEADER: expert.name or BARE_BASE, ADAPTER_ID_HEADER: expert.adapter or BARE_BASE}


def _new_id(kind: _Kind) -> str:
    return f"{kind.id_prefix}-{uuid4().hex}"
