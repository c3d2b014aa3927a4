"""Tables of one specialization: the job with its lease, its stages and what happened to it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.errors import Fault
from app.core.states import JobStatus, StageStatus
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

    cancel_requested: Mapped[bool] = mapped_column(default=False)
    owner: Mapped[str | None] = mapped_column(default=None)
    heartbeat_at: Mapped[datetime | None] = mapped_column(default=None)
    attempt: Mapped[int] = mapped_column(default=0)  # how often it was claimed; a fencing token

    error_code: Mapped[str | None] = mapped_column(default=None)
    error_message: Mapped[str | None] = mapped_column(Text, default=None)
    error_param: Mapped[str | None] = mapped_column(default=None)
    error_fault: Mapped[Fault | None] = mapped_column(default=None)

    adapter_id: Mapped[str | None] = mapped_column(ForeignKey("adapters.id", use_alter=True), default=None)
    started_at: Mapped[datetime | None] = mapped_column(default=None)
    finished_at: Mapped[datetime | None] = mapped_column(default=None)


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
