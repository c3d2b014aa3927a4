"""Tables of what users name: domains and the labelled sets they upload for them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.adapters import Adapter
from app.models.base import Base, SetRole


class Domain(Base):
    """A subject field; ``champion`` is the adapter its expert serves now (None: no expert yet)."""

    __tablename__ = "domains"

    name: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    description: Mapped[str | None] = mapped_column(Text, default=None)
    champion_id: Mapped[str | None] = mapped_column(ForeignKey("adapters.id", use_alter=True), default=None)

    # Read with the domain, never written through: see DomainRepository.set_champion.
    champion: Mapped[Adapter | None] = relationship(
        foreign_keys=[champion_id], viewonly=True, lazy="joined", init=False, default=None
    )


class SeedSet(Base):
    """Seeds or evaluation items as uploaded once; the rows themselves are an artifact."""

    __tablename__ = "seed_sets"

    id: Mapped[str] = mapped_column(primary_key=True)
    domain: Mapped[str] = mapped_column(ForeignKey("domains.name"), index=True)
    role: Mapped[SetRole]
    digest: Mapped[str]  # of the items, in order
    num_rows: Mapped[int]
    artifact_digest: Mapped[str]
    created_at: Mapped[datetime]


class UploadedFile(Base):
    """A file of the OpenAI-compatible API; its content is an artifact."""

    __tablename__ = "files"
    __table_args__ = (Index(None, "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    purpose: Mapped[str]
    filename: Mapped[str]
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    artifact_digest: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None] = mapped_column(default=None)


class Promotion(Base):
    """A change of what a domain serves; the newest row of a domain is how it stands."""

    __tablename__ = "promotions"
    __table_args__ = (Index(None, "domain", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True, init=False)
    domain: Mapped[str] = mapped_column(ForeignKey("domains.name"))
    adapter_id: Mapped[str | None] = mapped_column(ForeignKey("adapters.id"))  # None: it serves nothing any more
    created_at: Mapped[datetime]
    reason: Mapped[str] = mapped_column(Text)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), default=None)  # None: somebody asked for it


class Corpus(Base):
    """Passages to retrieve from; the texts are an artifact."""

    __tablename__ = "corpora"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    created_at: Mapped[datetime]
    artifact_digest: Mapped[str]
    num_passages: Mapped[int]
    num_duplicates: Mapped[int]  # left out
    num_bytes: Mapped[int] = mapped_column(BigInteger)
