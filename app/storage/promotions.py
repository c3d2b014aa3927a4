"""Named queries of promotions: what each domain served, and since when."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.errors import NotFound
from app.models import Adapter, Promotion

ROLLBACK = "rollback: "  # how the reason of one begins, and of nothing else


class PromotionRepository:
    """Promotions of the unit of work's transaction; ``DomainRepository.set_champion`` adds them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def list(
        self, domain: str, *, after: int | None = None, limit: int = 100
    ) -> Sequence[tuple[Promotion, Adapter | None]]:
        """At most ``limit``, newest first, each with its adapter, from behind the promotion ``after`` (or NotFound)."""
        query = select(Promotion, Adapter).outerjoin(Adapter, Adapter.id == Promotion.adapter_id)
        query = query.where(Promotion.domain == domain).order_by(Promotion.id.desc()).limit(limit)
        if after is not None:
            if self._session.scalar(select(Promotion.id).where(Promotion.id == after)) is None:
                raise NotFound(f"there is no promotion {after}", param="after")
            query = query.where(Promotion.id < after)
        return [(promotion, adapter) for promotion, adapter in self._session.execute(query)]

    def before(self, domain: str) -> str | None:
        """Id of the adapter that was served before the newest promotion which no rollback undid; None: nothing was."""
        standing = self.standing(domain)
        return standing[-2] if len(standing) > 1 else None

    def standing(self, domain: str) -> Sequence[str | None]:
        """Ids of what was served by the promotions that no rollback undid, oldest first: how far rollbacks reach."""
        query = select(Promotion.adapter_id, Promotion.reason).where(Promotion.domain == domain).order_by(Promotion.id)
        standing: list[str | None] = []
        for adapter_id, reason in self._session.execute(query):
            if reason.startswith(ROLLBACK):
                standing.pop()
            else:
                standing.append(adapter_id)
        return standing
