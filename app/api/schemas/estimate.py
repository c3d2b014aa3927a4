"""Bodies of /specialize/estimate."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.services.estimate import Estimate


class _Read(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class SpanBody(_Read):
    """Seconds; four of five jobs end between low and high."""

    seconds: float
    low: float
    high: float
    num_jobs: int = Field(description="Past jobs that this was measured on; 0: at least a part of it is assumed.")


class MemoryEstimateBody(_Read):
    """Most bytes in use at once: of the device on CUDA, else of the job's process."""

    peak_bytes: int
    num_jobs: int = Field(description="Past jobs that this was measured on; 0: assumed.")


class StageEstimateBody(_Read):
    """What one stage would take."""

    stage: str
    kind: str
    requests: int = Field(description="To the engine.")
    read_tokens: int = Field(description="Tokens of prompts that the engine computes.")
    written_tokens: int = Field(description="Tokens of answers.")
    trained_tokens: int = Field(description="Tokens learned from, each as often as it is read.")
    time: SpanBody
    memory: MemoryEstimateBody


class BasisBody(_Read):
    """What the estimate stands on."""

    how: Literal["measured", "partly measured", "assumed"]
    num_jobs: int = Field(description="Past jobs of this base whose times were kept.")
    machine: str | None = Field(description="Where those were measured; null: nowhere yet.")
    here: str = Field(description="The machine that answers.")
    notes: list[str] = Field(description="What is assumed, in words.")


class EstimateBody(BaseModel):
    """What a job would take, were it sent now."""

    domain: str
    base: str
    allowed_to_proceed: bool = Field(description="False: something stands against it, see reasons.")
    reasons: list[str]
    prompts: int = Field(description="That are sent for new tasks, in a round.")
    examples: int = Field(description="Generated ones that are expected to be accepted, in a round.")
    trained_tokens: int = Field(description="Of all adapters that the job makes.")
    generated_tokens: int
    time: SpanBody = Field(description="Of work, from the start of its process to its end.")
    start: SpanBody = Field(description="Of that, until the base is loaded.")
    queue_seconds: float | None = Field(description="Until it is taken up; null: nothing is known of the jobs ahead.")
    jobs_ahead: int = Field(description="That run or wait before it.")
    memory: MemoryEstimateBody
    free_bytes: int = Field(description="Memory that is free now.")
    fits: bool = Field(description="Whether that suffices.")
    stages: list[StageEstimateBody] = Field(description="In order. Rounds that turn out not to be needed are skipped.")
    basis: BasisBody


def body_of(estimate: Estimate) -> EstimateBody:
    """The estimate as it is sent."""
    return EstimateBody(
        domain=estimate.domain,
        base=estimate.base,
        allowed_to_proceed=estimate.allowed_to_proceed,
        reasons=list(estimate.reasons),
        prompts=estimate.prompts,
        examples=estimate.examples,
        trained_tokens=sum(stage.trained_tokens for stage in estimate.stages),
        generated_tokens=sum(stage.written_tokens for stage in estimate.stages),
        time=SpanBody.model_validate(estimate.time),
        start=SpanBody.model_validate(estimate.start),
        queue_seconds=estimate.queue_seconds,
        jobs_ahead=estimate.jobs_ahead,
        memory=MemoryEstimateBody.model_validate(estimate.memory),
        free_bytes=estimate.free_bytes,
        fits=estimate.fits,
        stages=[StageEstimateBody.model_validate(stage) for stage in estimate.stages],
        basis=BasisBody.model_validate(estimate.basis),
    )
