"""What the services hand out: frozen records read from the tables, safe to use after the transaction has ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from app.core.errors import Fault
from app.core.states import JobStatus, StageStatus, WaitsFor
from app.pipeline.metrics import Report
from app.pipeline.template import Template

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed, and whose fault it was."""

    code: str
    message: str
    param: str | None
    fault: Fault


@dataclass(frozen=True, slots=True)
class StageProgress:
    """How far a stage is. Times in seconds; ``seconds_remaining`` is None while there is nothing to reckon with."""

    stage: str
    status: StageStatus
    done: int = 0
    total: int | None = None
    seconds: float | None = None
    seconds_remaining: float | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as it stands.

    ``queue_position``: 1 is the next; None: it is not in the queue, or waits for a person. ``seconds_remaining``: of
    work, without the wait. ``trained_tokens``: that its expert learned from.
    """

    id: str
    domain: str
    status: JobStatus
    stage: str | None
    progress: tuple[StageProgress, ...]
    base: str
    recipe: dict[str, Any]
    num_seeds: int
    num_evaluation: int | None
    adapter: str | None
    error: JobError | None
    attempt: int
    waits_for: WaitsFor | None
    cancel_requested: bool
    pause_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    queue_position: int | None
    seconds_remaining: float | None
    estimated_finish: datetime | None
    trained_tokens: int | None


@dataclass(frozen=True, slots=True)
class EventView:
    """One line of a job's story."""

    id: int
    created_at: datetime
    level: str
    type: str
    stage: str | None
    message: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class MetricView:
    """The expert and another line on the same items; ``low`` to ``high`` holds the difference with 95 % certainty."""

    task: str
    metric: str
    n: int
    against: str
    shots: int
    score: float
    expert: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class JobMetrics:
    """All figures of a job's adapter. ``report`` None: it is no longer in the artifact store."""

    metrics: tuple[MetricView, ...]
    report: Report | None


@dataclass(frozen=True, slots=True)
class AdapterView:
    """One version of an expert."""

    id: str
    name: str
    domain: str
    version: int
    is_champion: bool
    attached: bool
    job: str
    base: str
    base_fingerprint: str
    rank: int
    alpha: int
    num_parameters: int
    num_modules: int
    num_bytes: int
    probe_distance: float
    template: Template
    digest: str
    created_at: datetime
    files_removed_at: datetime | None  # by retention: since then it can answer nothing
    decision: str | None  # the gate's
    reason: str | None
    metrics: tuple[MetricView, ...]


@dataclass(frozen=True, slots=True)
class DomainView:
    """A domain, the version it serves, and all its versions, the newest first."""

    name: str
    description: str | None
    champion: AdapterView | None
    versions: tuple[AdapterView, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class PromotionView:
    """A change of what a domain serves. ``job`` None: somebody asked for it."""

    id: int
    adapter: str | None
    adapter_name: str | None
    created_at: datetime
    reason: str
    job: str | None


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A stretch of a list; ``next`` is the ``after`` of the stretch behind it, or None at the end."""

    items: tuple[Item, ...]
    next: str | None
