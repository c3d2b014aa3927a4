"""Bodies about where a training row comes from."""

from __future__ import annotations

from pydantic import BaseModel, Field

from app.api.schemas.rows import TextsBody
from app.api.schemas.seeds import KnownSeedBody, WriterBody
from app.core.records import Origin


class VerdictBody(BaseModel):
    """One filter's verdict."""

    name: str = Field(description="What it would refuse.")
    is_passed: bool
    value: float | None = Field(description="What it measured.")
    detail: str


class ExampleBody(BaseModel):
    """A training row, as it is learned."""

    id: str
    instruction: str
    input: str
    output: str
    task: str | None = Field(description="null: the writer chose the task.")
    domain: str = Field(description="Of several domains, the one it is from; else empty.")
    origin: Origin
    weight: float = Field(description="Of its loss.")
    checks: list[VerdictBody] = Field(description="Every filter's verdict.")
    item: int | None = Field(description="Its place in the reply, from 0; null: it is a seed.")


class UsedPassageBody(BaseModel):
    """A passage that the response was written with."""

    id: str
    title: str
    text: str = Field(description="Empty if its corpus is gone.")
    score: float = Field(description="BM25.")
    weight: float = Field(description="p(passage | task); those of a row sum to 1.")


class ReplyBody(BaseModel):
    """The raw reply that the instruction was read from."""

    index: int = Field(description="Which prompt of the job, from 0.")
    task: str | None = Field(description="What the prompt was anchored to.")
    prompt: str
    text: str
    finish_reason: str
    num_tokens: int


class AnswerBody(BaseModel):
    """The raw answer to the instruction."""

    prompt: str
    text: str
    finish_reason: str
    num_tokens: int
    samples: list[str] = Field(description="Other answers to the same task, where several were drawn.")
    sample_generators: list[str] = Field(description="Who gave each of them: base, or an adapter's id.")
    sample_finish_reasons: list[str] = Field(description="And how each ended: stop, or length where it was cut off.")
    confidence: float | None = Field(description="How far they agree, 0 to 1.")
    merged: str | None = Field(
        description="What the row says instead, made of what the text and the samples found in the input; null: the "
        "text itself."
    )


class RowLineageBody(BaseModel):
    """A row of a job's dataset and all that led to it."""

    job: str
    stage: str = Field(description="The dataset's.")
    row: int = Field(description="From 0.")
    example: ExampleBody
    seeds: list[KnownSeedBody] = Field(description="Shown in the prompt, in order; of a seed's row the seed itself.")
    instruction_writer: WriterBody
    reply: ReplyBody | None = Field(description="null: the row is a seed.")
    response_writer: WriterBody
    answer: AnswerBody | None = Field(description="null: the row is a seed.")
    passages: list[UsedPassageBody]
    was: TextsBody | None = Field(
        description="Of a row that a person changed in a review, the texts it was made with, which writers, reply, "
        "answer and verdicts are about."
    )
    artifacts: dict[str, str] = Field(description="SHA-256 of what it was made from, by stage.")
