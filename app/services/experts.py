"""Who answers: a domain's champion, one version, an adapter that was loaded by name, or the bare base.

Which adapter is the champion is read from the database again whenever anything was committed to it, by whatever
process, so that every process serves a new one at once. The base stands in for nobody: it answers only when nobody, or
it itself, is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from app.core.errors import AdapterRefused, DatabaseAway, NotFound, UnknownDomain
from app.core.ports import Engine
from app.core.records import BaseInfo
from app.models import Adapter
from app.pipeline.template import ALPACA, Template
from app.services.adapters import KIND, files_gone, find_adapter, read_template
from app.services.domain_names import check_name, name_problem
from app.services.loaded_adapters import LoadedAdapters
from app.storage.artifacts import MANIFEST, ArtifactStore
from app.storage.database import Database, UnitOfWork

_REMEMBERED = 256  # adapters


@dataclass(frozen=True, slots=True)
class Target:
    """Who is asked: at most one of these; none is the bare base.

    ``domain`` is served by its champion; ``adapter`` is a version by id or name (``finance@v3``); ``model`` may be
    any of these, a loaded adapter's name or the base's name.
    """

    domain: str | None = None
    adapter: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Expert:
    """Who will answer: an adapter that is attached, or (all None) the bare base. ``template`` is its own."""

    domain: str | None
    adapter: str | None  # id
    name: str | None  # finance@v3
    job: str | None  # the job that made it
    template: Template


BARE_BASE = Expert(domain=None, adapter=None, name=None, job=None, template=ALPACA)


@dataclass(frozen=True, slots=True)
class _Known:
    """Who answered, and the database's version from before that was found out."""

    version: int
    expert: Expert


class Experts:
    """Finds and attaches."""

    def __init__(
        self, database: Database, artifacts: ArtifactStore, engine: Engine, *, loaded: LoadedAdapters | None = None
    ) -> None:
        self._database, self._artifacts, self._engine, self._loaded = database, artifacts, engine, loaded
        # Adapters never change, so what is read of one is kept; which one serves a domain is asked each time.
        self._template = lru_cache(maxsize=_REMEMBERED)(read_template)
        self._folder = lru_cache(maxsize=_REMEMBERED)(self._find_folder)
        self._versions: dict[str, Adapter] = {}  # that were asked for, by the name or id they were asked by
        self._known: dict[Target, _Known] = {}

    def at_hand(self, target: Target) -> Expert | None:
        """Who answers for ``target``, attached, if that can be said at once: the same as ``resolve`` would say.

        Waits for nothing. Raises NotReady.
        """
        self._engine.wait_ready(0)
        if target == Target():
            return BARE_BASE
        known = self._known.get(target)
        if known is None or known.version != self._database.version():
            return None
        expert = known.expert
        return expert if expert.adapter is None or self._engine.use(expert.adapter) else None

    def resolve(self, target: Target) -> Expert:
        """Who answers for ``target``, attached.

        Raises UnknownDomain, NotFound, NotReady (while the base loads), AdapterRefused (made on another base).
        """
        base = self._engine.wait_ready(0)
        if target == Target():
            return BARE_BASE
        version = self._database.version()  # before anything is read: what is committed meanwhile makes it another one
        expert = self._resolve(target, base)
        if version is not None and not _is_loaded(expert):
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[target] = _Known(version, expert)
        return expert

    def _resolve(self, target: Target, base: BaseInfo) -> Expert:
        try:
            adapter = self._find(target)
        except NotFound:
            if target.model is None:
                raise
            if target.model == base.name:
                return BARE_BASE
            if (expert := self._find_loaded(target.model)) is not None:
                return expert
            raise
        _check_base(adapter, base)
        self._engine.attach(adapter.id, self._folder_of(adapter))
        return Expert(adapter.domain, adapter.id, adapter.name, adapter.job_id, self._template(adapter.template))

    def _find(self, target: Target) -> Adapter:
        """While the database is away: a version that was asked for before. What a domain serves it alone can say."""
        named = target.adapter or target.model or ""
        try:
            adapter = self._read(target)
        except DatabaseAway:
            if target.domain is None and named in self._versions:
                return self._versions[named]
            raise
        if named in (adapter.name, adapter.id):
            self._versions[named] = adapter
            if len(self._versions) > _REMEMBERED:
                del self._versions[next(iter(self._versions))]
        return adapter

    def _read(self, target: Target) -> Adapter:
        with self._database.session(read_only=True) as uow:
            if target.domain is not None:
                return uow.domains.champion(check_name(target.domain))
            if target.adapter is not None:
                return find_adapter(uow, target.adapter)
            return _find_model(uow, target.model or "")

    def _find_loaded(self, name: str) -> Expert | None:
        loaded = None if self._loaded is None else self._loaded.find(name)
        if loaded is None:
            return None
        self._engine.attach(loaded.id, loaded.folder)
        return Expert(domain=None, adapter=loaded.id, name=loaded.name, job=None, template=loaded.template)

    def _folder_of(self, adapter: Adapter) -> Path:
        """Raises NotFound if retention took its files, whatever this process still holds of them."""
        try:
            folder = self._folder(adapter.artifact_digest)
        except NotFound as error:
            raise files_gone(self._database, adapter) from error
        if not (folder / MANIFEST).exists():
            raise files_gone(self._database, adapter)
        return folder

    def _find_folder(self, digest: str) -> Path:
        return self._artifacts.open(digest, kind=KIND).folder


def _find_model(uow: UnitOfWork, model: str) -> Adapter:
    """A version by its name, a domain's champion, or a version by its id."""
    if "@" in model:
        return find_adapter(uow, model)
    try:
        if name_problem(model):
            raise UnknownDomain(model, uow.domains.served())
        return uow.domains.champion(model)
    except UnknownDomain as unknown:
        try:
            return find_adapter(uow, model)
        except NotFound:
            raise unknown from None


def _is_loaded(expert: Expert) -> bool:
    """Whether it came from a folder by name: no commit tells that its files changed."""
    return expert.adapter is not None and expert.domain is None


def _check_base(adapter: Adapter, base: BaseInfo) -> None:
    if adapter.base_fingerprint != base.fingerprint:
        raise AdapterRefused(
            f"{adapter.name} was made on {adapter.base} ({adapter.base_fingerprint}), "
            f"and {base.name} ({base.fingerprint}) is loaded",
            param="domain",
        )
