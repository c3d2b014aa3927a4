"""Bodies of /generate."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Text = Annotated[str, StringConstraints(max_length=200_000)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class GenerateRequest(BaseModel):
    """A question."""

    model_config = ConfigDict(extra="forbid")

    instruction: Annotated[Text, StringConstraints(min_length=1, pattern=r"\S")] = Field(description="What to do.")
    input: Text | None = Field(None, description="The text it is about.")
    max_new_tokens: int = Field(256, ge=1, le=8192, description="Longest answer, tokens.")
    temperature: float = Field(0.0, ge=0, le=2, allow_inf_nan=False, description="0: always the likeliest token.")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw from the likeliest tokens that make up this share.")
    seed: int = Field(0, ge=0, lt=2**63, description="The same seed draws the same answer.")
    stop: list[Stop] = Field(default_factory=list, max_length=16, description="Texts that end the answer.")


class DomainQuery(BaseModel):
    """The query of /generate: a misspelt parameter must not make the base answer."""

    model_config = ConfigDict(extra="forbid")

    domain: str | None = Field(
        None, description="Whose expert answers; left out, the bare base does.", examples=["finance"]
    )


class Usage(BaseModel):
    """Tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Timings(BaseModel):
    """Seconds."""

    queue_seconds: float = Field(description="Waiting for a place in the batch.")
    seconds: float = Field(description="Computing the answer.")


class GenerateBody(BaseModel):
    """An answer and who computed it."""

    text: str
    domain: str | None
    adapter: str | None = Field(
        description="Id of the adapter that computed it, as the engine reports; null: the bare base."
    )
    adapter_name: str | None = Field(description="The same as domain@version.")
    base: str
    finish_reason: str = Field(description="stop (the end, or a stop text) or length.")
    usage: Usage
    timings: Timings
