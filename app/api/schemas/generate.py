"""Bodies of /generate, in our own shape; LoRAX's is in ``lorax``."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.api.answering import Answers
from app.core.records import TokenLogprob
from app.services.generate import Answer, Drawing, Question

MAX_ANSWERS = 64  # of one request: ``n`` times the experts asked
MAX_SHOTS = 32
MAX_LOGPROBS = 20

Text = Annotated[str, StringConstraints(max_length=200_000)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class GenerateRequest(BaseModel):
    """A question."""

    model_config = ConfigDict(extra="forbid")

    instruction: Annotated[Text, StringConstraints(min_length=1, pattern=r"\S")] = Field(description="What to do.")
    input: Text | None = Field(None, description="The text it is about.")
    adapter_id: Name | None = Field(None, description="The same as the query's adapter.")
    shots: int = Field(
        0, ge=0, le=MAX_SHOTS, description="Seeds of the expert's job shown with their answers first; always the same."
    )
    max_new_tokens: int | None = Field(
        256, ge=1, le=8192, description="Longest answer, tokens; null: as many as still fit."
    )
    temperature: float = Field(0.0, ge=0, le=2, allow_inf_nan=False, description="0: always the likeliest token.")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw from the likeliest tokens that make up this share.")
    seed: int = Field(0, ge=0, lt=2**63, description="The same seed draws the same answer; answer i of n has seed + i.")
    stop: list[Stop] = Field(default_factory=list, max_length=16, description="Texts that end the answer.")
    n: int = Field(1, ge=1, le=MAX_ANSWERS, description="Answers to the same question.")
    logprobs: int | None = Field(
        None, ge=0, le=MAX_LOGPROBS, description="Tell each token's log-probability, and this many likeliest tokens."
    )
    json_schema: dict[str, Any] | None = Field(None, description="A JSON schema that the answer, as JSON, satisfies.")
    ignore_eos: bool = Field(False, description="Write on to max_new_tokens; for measurements.")
    timeout_s: float | None = Field(
        None, gt=0, le=86_400, description="Seconds from now; what is written by then is the answer."
    )
    truncate: bool = Field(
        False, description="Cut what does not fit (shots first, then the input's end) instead of refusing it."
    )
    stream: bool = Field(False, description="Send the answer while it is written, as server-sent events.")

    def question(self) -> Question:
        return Question(self.instruction, self.input or "", self.shots)

    def drawing(self) -> Drawing:
        return Drawing(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=tuple(self.stop),
            logprobs=self.logprobs,
            schema=None if self.json_schema is None else json.dumps(self.json_schema),
            ignore_end=self.ignore_eos,
            timeout_seconds=self.timeout_s,
            n=self.n,
            truncate=self.truncate,
        )


class GenerateQuery(BaseModel):
    """The query of /generate: a misspelt parameter must not make the base answer."""

    model_config = ConfigDict(extra="forbid")

    domain: list[Annotated[str, StringConstraints(max_length=500), Field(examples=["finance"])]] = Field(
        default_factory=list,
        max_length=MAX_ANSWERS,
        description="Whose expert answers; several are asked in one batch. Left out, and no adapter named: the base.",
    )
    adapter: list[Annotated[Name, Field(examples=["finance@v1"])]] = Field(
        default_factory=list,
        max_length=MAX_ANSWERS,
        description="A version by name or id, whatever its domain serves now; several are asked in one batch.",
    )


class Usage(BaseModel):
    """Tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int = Field(description="Of the prompt, computed before: a beginning this expert had read already.")
    cut_tokens: int = Field(description="Of the input, left out to fit (truncate).")
    shots: int = Field(description="Seeds shown.")


class Timings(BaseModel):
    """Seconds."""

    queue_seconds: float = Field(description="Waiting for a place in the batch.")
    first_token_seconds: float = Field(description="From the question to the first token.")
    seconds: float = Field(description="Computing the answer.")


class AlternativeBody(BaseModel):
    """A likely token."""

    token: str
    logprob: float


class LogprobBody(AlternativeBody):
    """One token of the answer, and the likeliest in its place."""

    top: list[AlternativeBody]

    @classmethod
    def of(cls, told: TokenLogprob) -> LogprobBody:
        top = [AlternativeBody(token=token, logprob=logprob) for token, logprob in told.top]
        return cls(token=told.token, logprob=told.logprob, top=top)


class GenerateBody(BaseModel):
    """An answer and who computed it."""

    text: str
    domain: str | None
    adapter: str | None = Field(
        description="Id of the adapter that computed it, as the engine reports; null: the bare base."
    )
    adapter_name: str | None = Field(description="The same as domain@version.")
    base: str
    finish_reason: str = Field(description="stop (the end, or a stop text), length or timeout.")
    usage: Usage
    timings: Timings
    logprobs: list[LogprobBody] | None = Field(None, description="One a token, if they were asked for.")

    @classmethod
    def of(cls, answers: Answers, answer: Answer) -> GenerateBody:
        completion = answer.completion
        return cls(
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
                cached_tokens=completion.cached_tokens,
                cut_tokens=answers.prompt.cut_tokens,
                shots=answers.prompt.shots,
            ),
            timings=Timings(
                queue_seconds=completion.queue_seconds,
                first_token_seconds=completion.first_token_seconds,
                seconds=completion.seconds,
            ),
            logprobs=[LogprobBody.of(told) for told in completion.logprobs] if completion.logprobs else None,
        )


class GenerateBodies(BaseModel):
    """Several answers: by expert in the order asked, ``n`` of each."""

    answers: list[GenerateBody]
