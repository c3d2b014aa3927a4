"""Table of the processes that take jobs."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class Worker(Base):
    """A worker process that said it lives. It removes its row when it ends in order; else ``seen_at`` stands still."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    slots: Mapped[int]  # jobs it runs at once
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
