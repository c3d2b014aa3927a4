"""The names callers may ask for: the base, domains, their versions, and adapters loaded into this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from app.core.errors import NotFound
from app.core.ports import Engine
from app.core.records import BaseInfo
from app.models import Adapter, Domain
from app.services.loaded_adapters import LoadedAdapters
from app.storage.database import Database


@dataclass(frozen=True, slots=True)
class ServedName:
    """One name. ``root`` says what is behind it; ``parent`` is the base it needs (None: it is the base)."""

    name: str
    root: str
    parent: str | None
    created_at: datetime
    context_tokens: int


class ServedNames:
    """Reads them anew each time; every method may block on the database."""

    def __init__(
        self, database: Database, engine: Engine, loaded: LoadedAdapters, *, clock: Callable[[], datetime]
    ) -> None:
        self._database, self._engine, self._loaded = database, engine, loaded
        self._started_at = clock()

    def list(self) -> tuple[ServedName, ...]:
        """The base first, then each domain with its versions, then what was loaded. Raises NotReady."""
        base = self._engine.wait_ready(0)
        with self._database.session(read_only=True) as uow:
            domains, adapters, removed = uow.domains.list(), uow.adapters.list(), uow.artifacts.removed_adapters()
        fitting = [adapter for adapter in adapters if adapter.base_fingerprint == base.fingerprint]
        served = [adapter for adapter in fitting if adapter.artifact_digest not in removed]
        loaded = [
            ServedName(one.name, str(one.folder), base.name, one.created_at, base.context_tokens)
            for one in self._loaded.list()
        ]
        own = ServedName(base.name, base.name, None, self._started_at, base.context_tokens)
        return (own, *(name for domain in domains for name in _of_domain(domain, served, base)), *loaded)

    def get(self, name: str) -> ServedName:
        """One of them; an adapter's id stands for its version. Raises NotFound, NotReady."""
        for served in self.list():
            if name in (served.name, served.root) and (name == served.name or "@" in served.name):
                return served
        raise NotFound(f"there is no {name!r}; GET /v1/models lists what there is", param="model")


def _of_domain(domain: Domain, served: list[Adapter], base: BaseInfo) -> Iterator[ServedName]:
    """Its champion under the domain's own name, then all its versions."""

    def named(name: str, root: str, adapter: Adapter) -> ServedName:
        return ServedName(name, root, base.name, adapter.created_at, base.context_tokens)

    if domain.champion in served and domain.champion is not None:
        yield named(domain.name, domain.champion.name, domain.champion)
    yield from (named(adapter.name, adapter.id, adapter) for adapter in served if adapter.domain == domain.name)
