"""Tables of what jobs leave: artifacts, adapter versions and their metrics."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class ArtifactEntry(Base):
    """Index of the artifact store: which job and stage made an artifact first, and from what."""

    __tablename__ = "artifacts"

    digest: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    parents: Mapped[list[str]]
    created_at: Mapped[datetime]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), default=None, index=True)
    stage: Mapped[str | None] = mapped_column(default=None)
    removed_at: Mapped[datetime | None] = mapped_column(default=None)  # its files are gone: retention took them


class Adapter(Base):
    """One immutable set of LoRA weights, right only on the base with this fingerprint."""

    __tablename__ = "adapters"
    __table_args__ = (UniqueConstraint("domain", "version"), UniqueConstraint("domain", "artifact_digest"))

    id: Mapped[str] = mapped_column(primary_key=True)
    domain: Mapped[str] = mapped_column(ForeignKey("domains.name"))
    version: Mapped[int]
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    artifact_digest: Mapped[str]
    base: Mapped[str]
    base_fingerprint: Mapped[str]
    rank: Mapped[int]
    alpha: Mapped[int]
    num_parameters: Mapped[int] = mapped_column(BigInteger)
    num_modules: Mapped[int]
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    probe_distance: Mapped[float]  # nats; see records.Attachment
    template: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    decision: Mapped[str | None] = mapped_column(default=None)  # the gate's: promote, hold or reject
    reason: Mapped[str | None] = mapped_column(Text, default=None)

    @property
    def name(self) -> str:
        """For people: ``finance@v1``."""
        return f"{self.domain}@v{self.version}"


class Metric(Base):
    """One figure of an evaluation: expert and another line on the same items, and the difference (95 % interval)."""

    __tablename__ = "metrics"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True, init=False)
    adapter_id: Mapped[str] = mapped_column(ForeignKey("adapters.id"), index=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    task: Mapped[str]  # a task's name, or "mean"
    metric: Mapped[str]  # "f1", "f1_box" or "rougeL"
    n: Mapped[int]
    against: Mapped[str]  # see records.Line
    shots: Mapped[int]
    score: Mapped[float]  # of the line it is compared with
    expert: Mapped[float]
    difference: Mapped[float]
    low: Mapped[float]
    high: Mapped[float]
    detail: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
