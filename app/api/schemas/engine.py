"""Bodies of /engine."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Read(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class BaseBody(_Read):
    """The base as it is loaded."""

    name: str
    fingerprint: str = Field(description="Of weights, tokenizer and quantization; adapters are tied to it.")
    quantization: str = Field(description="nf4 or none.")
    dtype: str
    device: str
    context_tokens: int = Field(description="Prompt and answer together, at most.")
    num_parameters: int


class SlotsBody(BaseModel):
    """Places on the device for adapters that are computed side by side."""

    total: int
    used: int
    bytes_each: int


class BatchBody(BaseModel):
    """Sequences."""

    max: int = Field(description="Computed together, at most.")
    running: int
    waiting: int


class MemoryBody(BaseModel):
    """Bytes."""

    used: int
    budget: int


class MemoriesBody(BaseModel):
    """What memory is used for."""

    slots: MemoryBody = Field(description="Slots on the device; they are taken whole from the start.")
    host: MemoryBody = Field(description="Adapters kept in host memory.")
    cache: MemoryBody = Field(description="Keys and values of running requests.")
    prefix: MemoryBody = Field(description="Keys and values kept for prompts that begin alike.")


class ExpertLoadBody(BaseModel):
    """One adapter in memory, or the bare base."""

    name: str = Field(description="domain@version; `base`; or the id of an adapter without a name.")
    adapter: str | None = Field(description="Its id; null: the bare base.")
    slot: int | None = Field(description="null: it waits in host memory for a slot.")
    num_bytes: int
    is_pinned: bool
    running: int
    waiting: int


class NotAttachedBody(_Read):
    """An expert that the start could not attach; it is tried again when it is asked."""

    name: str
    reason: str


class WarmUpBody(_Read):
    """How the process started; a figure is null until it is known."""

    load_seconds: float | None = Field(description="Until the base was loaded.")
    first_token_seconds: float | None = Field(description="Of a first short question to the base.")
    seconds: float | None = Field(description="Until everything was done.")
    attached: list[str] = Field(description="Experts attached again, the newest first.")
    not_attached: list[NotAttachedBody]
    failure: str | None = Field(description="Why the start did not get to its end.")


class EngineBody(BaseModel):
    """One look into the engine."""

    base: BaseBody
    slots: SlotsBody
    batch: BatchBody
    memory: MemoriesBody
    experts: list[ExpertLoadBody] = Field(description="The busiest first.")
    counters: dict[str, float] = Field(description="Since the process started; see docs/observability.md.")
    warm_up: WarmUpBody | None = Field(description="null: this process does not warm up (SELFSPEC_WARM_UP).")
