"""What every table shares: the declarative base, UTC timestamps and how Python types become columns.

Knows nothing about queries: those are in ``app/storage``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import JSON, DateTime, Dialect, Enum, MetaData
from sqlalchemy.orm import DeclarativeBase, MappedAsDataclass
from sqlalchemy.types import TypeDecorator

from app.core.errors import Fault
from app.core.states import JobStatus, StageStatus, WaitsFor


class UtcDateTime(TypeDecorator[datetime]):
    """An instant: only aware datetimes go in, UTC comes out, also on SQLite (which stores no time zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime without a time zone cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class EventLevel(StrEnum):
    """How much an event matters to a person."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class SetRole(StrEnum):
    """What a set of labelled examples is for."""

    SEEDS = "seeds"
    EVALUATION = "evaluation"
    LABELLED = "labelled"  # to compare with: what supervision reaches


def _text_enum(kind: type[StrEnum]) -> Enum:
    """Stored as its value in a VARCHAR, so that a new member needs no migration."""
    return Enum(kind, native_enum=False, length=32, values_callable=lambda members: [m.value for m in members])


class Base(MappedAsDataclass, DeclarativeBase, kw_only=True, eq=False, repr=False):
    """Root of the tables. Constructors take keywords only; a column with a default may be left out."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
        **{kind: _text_enum(kind) for kind in (JobStatus, StageStatus, WaitsFor, Fault, EventLevel, SetRole)},
    }
