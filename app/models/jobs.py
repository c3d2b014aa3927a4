"""Tables of one specialization: the job with its lease, its stages and what happened to it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.errors import Fault
from app.core.states import JobStatus, StageStatus, WaitsFor
from app.models.base import Base, EventLevel


class Job(Base):
    """One specialization. ``owner``, ``heartbeat_at`` and ``attempt`` are the lease: who works on it."""

    __tablename__ = "jobs"
    __table_args__ = (Index(None, "created_at", "id"), Index(None, "status", "created_at"))

    id: Mapped[str] = mapped_column(primary_key=True)
    domain: Mapped[str] = mapped_column(ForeignKey("domains.name"), index=True)
    recipe: Mapped[dict[str, Any]]
    base: Mapped[str]
    seed_set_id: Mapped[str] = mapped_column(ForeignKey("seed_sets.id"))
    request_digest: Mapped[str]
    created_at: Mapped[datetime]
    evaluation_set_id: Mapped[str | None] = mapped_column(ForeignKey("seed_sets.id"), default=None)
    labelled_set_id: Mapped[str | None] = mapped_column(ForeignKey("seed_sets.id"), default=None)
    idempotency_key: Mapped[str | None] = mapped_column(unique=True, default=None)
    status: Mapped[JobStatus] = mapped_column(default=JobStatus.QUEUED)
    stage: Mapped[str | None] = mapped_column(default=None)

    waits_for: Mapped[WaitsFor | None] = mapped_column(default=None)  # of a queued job
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    pause_requested: Mapped[bool] = mapped_column(default=False)
    owner: Mapped[str | None] = mapped_column(default=None)
    heartbeat_at: Mapped[datetime | None] = mapped_column(default=None)
    attempt: Mapped[int] = mapped_column(default=0)  # how often it was claimed; a fencing token
    deaths: Mapped[int] = mapped_column(default=0)  # of its processes, one after another without saving anything

    error_code: Mapped[str | None] = mapped_column(default=None)
    error_message: Mapped[str | None] = mapped_column(Text, default=None)
    error_param: Mapped[str | None] = mapped_column(default=None)
    error_fault: Mapped[Fault | None] = mapped_column(default=None)

    adapter_id: Mapped[str | None] = mapped_column(ForeignKey("adapters.id", use_alter=True), default=None)
    started_at: Mapped[datetime | None] = mapped_column(default=None)
    finished_at: Mapped[datetime | None] = mapped_column(default=None)
    webhook_url: Mapped[str | None] = mapped_column(Text, default=None)


class SeedUse(Base):
    """A job that a seed was sent to; what it made of it is found in the job's dataset."""

    __tablename__ = "seed_uses"

    seed_id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True, index=True)


class StageRun(Base):
    """How far one stage of a job is. ``done`` and ``total`` count whatever the stage makes."""

    __tablename__ = "stage_runs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    stage: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    status: Mapped[StageStatus] = mapped_column(default=StageStatus.PENDING)
    done: Mapped[int] = mapped_column(BigInteger, default=0)
    total: Mapped[int | None] = mapped_column(BigInteger, default=None)
    started_at: Mapped[datetime | None] = mapped_column(default=None)
    finished_at: Mapped[datetime | None] = mapped_column(default=None)
    artifact_digest: Mapped[str | None] = mapped_column(default=None)
    worked_seconds: Mapped[float] = mapped_column(default=0.0)  # over all attempts, without what lay between them
    worked_at: Mapped[datetime | None] = mapped_column(default=None)  # when those seconds were last told
    planned: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), default=None)  # a PlannedStage
    work: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)  # what the engine did for it so far: a Work
    detail: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)


class Event(Base):
    """One line of a job's story; ``id`` grows, so a reader asks for what came after the last one it saw."""

    __tablename__ = "events"
    __table_args__ = (Index(None, "job_id", "id"),)

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True, init=False
    )
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    created_at: Mapped[datetime]
    type: Mapped[str]
    message: Mapped[str] = mapped_column(Text)
    level: Mapped[EventLevel] = mapped_column(default=EventLevel.INFO)
    stage: Mapped[str | None] = mapped_column(default=None)
    data: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)


class RowEdit(Base):
    """A person's change of one row of a dataset that a job holds for review. ``row`` None: the row is left out."""

    __tablename__ = "row_edits"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    stage: Mapped[str] = mapped_column(primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # in the dataset as it was made, from 0
    created_at: Mapped[datetime]
    row: Mapped[dict[str, Any] | None] = mapped_column(default=None)


class WebhookDelivery(Base):
    """One event that a job's webhook is to be told. ``due_at``: when it is tried (again); None: that is over."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (Index(None, "due_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    type: Mapped[str]
    url: Mapped[str] = mapped_column(Text)
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    due_at: Mapped[datetime | None]
    tries: Mapped[int] = mapped_column(default=0)
    delivered_at: Mapped[datetime | None] = mapped_column(default=None)
    last_error: Mapped[str | None] = mapped_column(Text, default=None)


class Throughput(Base):
    """What one stage of a finished job took on a machine, to reckon with. ``amount`` counts ``unit``."""

    __tablename__ = "throughputs"
    __table_args__ = (Index(None, "machine", "base", "kind"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    stage: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    machine: Mapped[str]
    base: Mapped[str]
    unit: Mapped[str]
    amount: Mapped[float]
    seconds: Mapped[float]
    created_at: Mapped[datetime]
    peak_bytes: Mapped[int | None] = mapped_column(BigInteger, default=None)
    detail: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)


class FineTuning(Base):
    """What a job was asked for through the OpenAI-compatible API, to be told again as it was asked."""

    __tablename__ = "fine_tunings"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    training_file: Mapped[str]
    model: Mapped[str]
    request: Mapped[dict[str, Any]]  # the body as sent
    validation_file: Mapped[str | None] = mapped_column(default=None)
    labels: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)  # what that API calls metadata
