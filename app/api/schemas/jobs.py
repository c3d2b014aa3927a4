"""Bodies about jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from app.core.errors import Fault
from app.core.states import JobStatus, StageStatus, WaitsFor


class JobErrorBody(BaseModel):
    """Why a job failed."""

    code: str
    message: str
    param: str | None
    fault: Fault = Field(description="Whose mistake it was: the user's (send something else) or the service's.")


class StageProgressBody(BaseModel):
    """How far one stage is."""

    stage: str
    status: StageStatus
    done: int = Field(description="How many of what the stage makes.")
    total: int | None = Field(description="How many there will be; null while that is not known.")
    seconds: float | None = Field(description="Time worked, seconds, interruptions left out.")
    seconds_remaining: float | None = Field(description="Time left at the pace so far, seconds; null if not running.")
    started_at: datetime | None
    finished_at: datetime | None
    detail: dict[str, Any] = Field(description="What the stage has to tell: counts, reasons of rejection, losses.")


class JobBody(BaseModel):
    """One specialization: seeds in, an evaluated adapter out."""

    id: str
    domain: str
    status: JobStatus = Field(description="Ends as succeeded, failed or cancelled.")
    stage: str | None = Field(description="The stage at work, or where the job ended.")
    progress: list[StageProgressBody] = Field(description="Every stage, in order.")
    base: str
    recipe: dict[str, Any] = Field(description="Every knob, with the preset's values filled in.")
    num_seeds: int
    num_evaluation: int | None = Field(description="Uploaded evaluation items; null: part of the seeds is held out.")
    adapter: str | None = Field(description="Id of the adapter it made.")
    error: JobErrorBody | None
    attempt: int = Field(description="How often a worker took it up.")
    waits_for: WaitsFor | None = Field(
        description="Why a queued job is not taken up: resume (it was paused) or review (of its rows), until POST "
        "/jobs/{id}/resume; memory or disk, until there is enough."
    )
    cancel_requested: bool
    pause_requested: bool = Field(description="It stops at the next place where nothing is lost.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    queue_position: int | None = Field(
        description="1: the next to be taken up; null: it is not in the queue, or waits for a person."
    )
    seconds_remaining: float | None = Field(
        description="Of work, without the wait for jobs ahead: by the pace of the stage at work and past jobs' times. "
        "null: it has ended, or nothing is known."
    )
    estimated_finish: datetime | None = Field(
        description="When it will end, jobs ahead of it included; null: it has ended, waits for a person, or nothing "
        "is known."
    )
    trained_tokens: int | None = Field(
        description="Tokens that the expert learned from, each as often as it was read; null while there is no expert."
    )


class JobPage(BaseModel):
    """Some jobs, the newest first."""

    data: list[JobBody]
    next: str | None = Field(description="Give it as `after` to read on; null at the end.")


class EventBody(BaseModel):
    """One line of a job's story."""

    id: int
    created_at: datetime
    level: str = Field(description="info, warning or error.")
    type: str = Field(description="For programs.")
    stage: str | None
    message: str = Field(description="For people.")
    data: dict[str, Any]


class EventPage(BaseModel):
    """Some events, oldest first."""

    data: list[EventBody]
    next: str | None = Field(description="Give it as `after` to read on; null if there is no more now.")


class MetricBody(BaseModel):
    """The expert and who else answered the same items; scores from 0 to 100."""

    task: str = Field(description='A task\'s name, or "mean": the mean over tasks.')
    metric: str = Field(description="f1 (token F1), f1_box (F1 of the best comma-separated piece) or rougeL.")
    n: int = Field(description="Items.")
    against: str = Field(
        description="Who else answered: base_template (the base, asked like the expert), base (without the template), "
        "seeds_same_epochs and seeds_same_steps (learned from the seeds alone), supervised (from labelled rows), "
        "champion (what the domain served), or a stage's name (another adapter of the job)."
    )
    shots: int = Field(description="Demonstrations that both were shown.")
    score: float = Field(description="Of who else answered.")
    expert: float
    difference: float = Field(description="Expert minus the other.")
    low: float = Field(description="Lower end of the 95 % interval of the difference.")
    high: float = Field(description="Upper end of the 95 % interval of the difference.")


class AboutBody(BaseModel):
    """Which items chose the expert and which judge it."""

    chosen_by: str | None = Field(description='"holdout", or null: there was nothing to choose.')
    reported_on: str = Field(description='"evaluation" (the set that was sent) or "holdout" (seeds held out).')
    n: int = Field(description="Items.")
    num_shown_fewer: int = Field(description="Times an item left no room for as many demonstrations as asked for.")
    notes: list[str] = Field(description="What to bear in mind, in words: how small the set is, and so on.")


class OverShotsBody(BaseModel):
    """One line's scores over the numbers of demonstrations."""

    line: str = Field(description="Who answered: as `against`, or expert.")
    task: str = Field(description='A task\'s name, or "mean": the means over tasks.')
    metric: str
    worst: float
    average: float
    best: float


class OtherDomainBody(BaseModel):
    """Mean token F1 on items of another domain's evaluation set."""

    domain: str
    n: int = Field(description="Items.")
    base: float = Field(description="Of the base, asked like the expert.")
    expert: float
    difference: float
    low: float = Field(description="Lower end of the 95 % interval of the difference.")
    high: float


class PerplexityBody(BaseModel):
    """How much plain English sentences surprise, a token: 1 is not at all."""

    base: float
    expert: float
    ratio: float = Field(description="Expert by base; above 1 it has forgotten something.")
    num_tokens: int


class OffDomainBody(BaseModel):
    """What the expert has forgotten."""

    domains: list[OtherDomainBody]
    perplexity: PerplexityBody


class MetricsBody(BaseModel):
    """The figures of one job's adapter."""

    job: str
    metrics: list[MetricBody]
    about: AboutBody | None = Field(description="null: it is no longer in the artifact store.")
    over_shots: list[OverShotsBody] = Field(description="Of lines asked with several numbers of demonstrations.")
    off_domain: OffDomainBody | None = Field(description="null: it is no longer in the artifact store.")
