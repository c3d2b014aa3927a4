"""Named queries of domains and of the labelled sets uploaded for them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import bindparam, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.errors import Conflict, NotFound, UnknownDomain
from app.models import Adapter, Domain, Promotion, SeedSet, SetRole

# Read at every request to an expert, so it is built once: that is a third of its cost.
_CHAMPION = select(Adapter).join(Domain, Domain.champion_id == Adapter.id).where(Domain.name == bindparam("name"))


class DomainRepository:
    """Domains of the unit of work's transaction; each comes with its ``champion`` row (None: no expert yet)."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find(self, name: str) -> Domain | None:
        """The domain as it is now, or None."""
        query = select(Domain).where(Domain.name == name).execution_options(populate_existing=True)
        return self._session.scalar(query)

    def get(self, name: str) -> Domain:
        """The domain as it is now; raises UnknownDomain."""
        domain = self.find(name)
        if domain is None:
            raise UnknownDomain(name, self.served())
        return domain

    def get_or_add(self, name: str, *, now: datetime, description: str | None = None) -> Domain:
        """The domain, made if it is new. A description that is given replaces the old one."""
        domain = self.find(name) or self._add(name, now)
        if description is not None:
            domain.description = description
            self._session.flush()
        return domain

    def list(self) -> Sequence[Domain]:
        """All domains by name."""
        query = select(Domain).order_by(Domain.name).execution_options(populate_existing=True)
        return self._session.scalars(query).all()

    def served(self) -> Sequence[str]:
        """Names of the domains that have an expert."""
        query = select(Domain.name).where(Domain.champion_id.is_not(None))
        return self._session.scalars(query.order_by(Domain.name)).all()

    def champion(self, name: str) -> Adapter:
        """The adapter the domain's expert serves; raises UnknownDomain if there is no such domain or no expert yet."""
        adapter = self._session.scalar(_CHAMPION, {"name": name})
        if adapter is None:
            raise UnknownDomain(name, self.served())
        return adapter

    def lock(self, name: str) -> None:
        """Let no other transaction change what the domain serves before this one ends; raises UnknownDomain."""
        if self._session.scalar(select(Domain.name).where(Domain.name == name).with_for_update()) is None:
            raise UnknownDomain(name, self.served())

    def set_champion(
        self, name: str, adapter_id: str, *, now: datetime, reason: str, job_id: str | None = None
    ) -> Domain:
        """Serve this adapter from now on, and write down why; nothing happens if it is served already.

        ``job_id``: the job whose gate decided it. Raises NotFound, and Conflict if it is another domain's.
        """
        self.lock(name)
        domain, adapter = self.get(name), self._session.get(Adapter, adapter_id)
        if adapter is None:
            raise NotFound(f"there is no adapter {adapter_id!r}", param="adapter")
        if adapter.domain != name:
            raise Conflict(f"adapter {adapter_id} is of domain {adapter.domain!r}, not {name!r}", param="adapter")
        if domain.champion_id != adapter_id:
            domain.champion_id = adapter_id
            change = Promotion(domain=name, adapter_id=adapter_id, created_at=now, reason=reason, job_id=job_id)
            self._session.add(change)
            self._session.flush()
        return self.get(name)

    def _add(self, name: str, now: datetime) -> Domain:
        try:
            with self._session.begin_nested():
                self._session.add(Domain(name=name, created_at=now))
        except IntegrityError:  # another one was quicker
            pass
        return self.get(name)


class SeedSetRepository:
    """Seed and evaluation sets of the unit of work's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, seed_set: SeedSet) -> SeedSet:
        """Store a set; its domain must be there."""
        self._session.add(seed_set)
        self._session.flush()
        return seed_set

    def get(self, seed_set_id: str) -> SeedSet:
        """One set; raises NotFound."""
        seed_set = self._session.get(SeedSet, seed_set_id)
        if seed_set is None:
            raise NotFound(f"there is no seed set {seed_set_id!r}", param="seed_set_id")
        return seed_set

    def num_rows(self, seed_set_ids: Collection[str]) -> dict[str, int]:
        """How many items each of these sets has."""
        query = select(SeedSet.id, SeedSet.num_rows).where(SeedSet.id.in_(seed_set_ids))
        return {row.id: row.num_rows for row in self._session.execute(query)}

    def newest(self, role: SetRole, *, besides: Collection[str] = ()) -> Sequence[SeedSet]:
        """The newest set of that role of every domain but those ``besides``, by domain."""
        newest_first = func.row_number().over(
            partition_by=SeedSet.domain, order_by=(SeedSet.created_at.desc(), SeedSet.id.desc())
        )
        ranked = select(SeedSet.id, newest_first.label("place")).where(SeedSet.role == role).subquery()
        query = select(SeedSet).join(ranked, ranked.c.id == SeedSet.id).where(ranked.c.place == 1)
        return self._session.scalars(query.where(SeedSet.domain.not_in(besides)).order_by(SeedSet.domain)).all()
