"""What a domain serves, changed by hand: promote a version, go back to the one before, read who changed it and why.

A change is one transaction. Whoever asks the expert reads the champion when the question begins, so questions in
flight end on the adapter that they began with, and the next one meets the new champion.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

from app.core.errors import Conflict, NotFound
from app.core.ports import Engine
from app.core.records import BaseInfo
from app.models import Adapter, Promotion
from app.services.adapters import KIND, find_adapter
from app.services.domain_names import check_name
from app.services.domains import DomainService
from app.services.views import DomainView, Page, PromotionView
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database, UnitOfWork
from app.storage.promotions import ROLLBACK

BY_HAND = "by hand"
_NUMBER = re.compile(r"v?(\d{1,9})")


class PromotionService:
    """Changes champions; every method may block on the database."""

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactStore,
        engine: Engine,
        *,
        domains: DomainService,
        clock: Callable[[], datetime],
    ) -> None:
        self._database, self._artifacts, self._engine = database, artifacts, engine
        self._domains, self._clock = domains, clock

    def promote(self, domain: str, version: int | str, *, reason: str | None = None) -> DomainView:
        """Serve this version: its number, its name (``finance@v3``) or its id. One that is served already stays.

        Raises UnknownDomain, NotFound, Conflict (another domain's, made on another base, its files are gone), NotReady
        while the base loads.
        """
        base = self._engine.wait_ready(0)
        with self._database.session() as uow:
            uow.domains.lock(check_name(domain))
            adapter = _find(uow, domain, version)
            self._check_serves(adapter, base)
            told = f"{BY_HAND}: {reason.strip()}" if reason and reason.strip() else BY_HAND
            uow.domains.set_champion(domain, adapter.id, now=self._clock(), reason=told)
            uow.commit()
        return self._domains.get(domain)

    def rollback(self, domain: str) -> DomainView:
        """Serve what was served before the newest promotion that still stands; again: what was served before that.

        Raises UnknownDomain, Conflict if nothing was, or if it can no longer be served; NotReady while the base loads.
        """
        base = self._engine.wait_ready(0)
        with self._database.session() as uow:
            uow.domains.lock(check_name(domain))
            before, now = uow.promotions.before(domain), uow.domains.get(domain).champion
            if before is None:
                served = f"serves {now.name} and nothing was served before it" if now else "serves nothing yet"
                raise Conflict(f"domain {domain!r} {served}: there is nothing to go back to", param="domain")
            adapter = uow.adapters.get(before)
            self._check_serves(adapter, base)
            told = f"{ROLLBACK}{now.name if now else 'nothing'} → {adapter.name}"
            uow.domains.set_champion(domain, adapter.id, now=self._clock(), reason=told)
            uow.commit()
        return self._domains.get(domain)

    def history(self, domain: str, *, after: int | None = None, limit: int = 20) -> Page[PromotionView]:
        """The newest first; ``after`` is the last id of the page before (NotFound if there is none such)."""
        with self._database.session(read_only=True) as uow:
            uow.domains.get(check_name(domain))
            rows = uow.promotions.list(domain, after=after, limit=limit + 1)
        views = tuple(_view(promotion, adapter) for promotion, adapter in rows[:limit])
        return Page(views, str(views[-1].id) if len(rows) > limit else None)

    def _check_serves(self, adapter: Adapter, base: BaseInfo) -> None:
        if adapter.base_fingerprint != base.fingerprint:
            raise Conflict(
                f"{adapter.name} was made on {adapter.base} ({adapter.base_fingerprint}), and {base.name} "
                f"({base.fingerprint}) is loaded: it would answer nothing",
                param="version",
            )
        try:
            self._artifacts.open(adapter.artifact_digest, kind=KIND)
        except NotFound as error:
            raise Conflict(f"the files of {adapter.name} are not in the artifact store", param="version") from error


def _find(uow: UnitOfWork, domain: str, version: int | str) -> Adapter:
    number = _NUMBER.fullmatch(str(version))
    try:
        return uow.adapters.by_name(domain, int(number[1])) if number else find_adapter(uow, str(version))
    except NotFound as error:
        raise NotFound(f"{error.message}; GET /domains/{domain} lists its versions", param="version") from error


def _view(promotion: Promotion, adapter: Adapter | None) -> PromotionView:
    return PromotionView(
        id=promotion.id,
        adapter=promotion.adapter_id,
        adapter_name=None if adapter is None else adapter.name,
        created_at=promotion.created_at,
        reason=promotion.reason,
        job=promotion.job_id,
    )
