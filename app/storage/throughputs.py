"""Named queries of throughputs: what the stages of past jobs took. Knows nothing about how one reckons with them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app.models import Throughput


class ThroughputRepository:
    """Throughputs of the unit of work's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def put(self, throughput: Throughput) -> None:
        """Enter one, in place of what the same stage of the same job took before."""
        self._session.merge(throughput)
        self._session.flush()

    def newest(self, base: str, *, machine: str | None = None, limit: int = 200) -> Sequence[Throughput]:
        """Of a base, on one machine: the newest first. ``machine`` None, or one without any: where it last worked."""
        own = [] if machine is None else self._on(Throughput.machine == machine, base, limit)
        if own:
            return own
        last = select(Throughput.machine).where(Throughput.base == base).order_by(Throughput.created_at.desc()).limit(1)
        return self._on(Throughput.machine == last.scalar_subquery(), base, limit)

    def _on(self, machine: ColumnElement[bool], base: str, limit: int) -> Sequence[Throughput]:
        query = select(Throughput).where(Throughput.base == base, machine)
        query = query.order_by(Throughput.created_at.desc(), Throughput.job_id, Throughput.stage)
        return self._session.scalars(query.limit(limit)).all()
