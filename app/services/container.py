"""All services of one process, put together from what the composition root opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from app.core.ports import Engine
from app.services.adapters import AdapterService
from app.services.corpora import CorpusService
from app.services.dispatch import Dispatcher
from app.services.doctor import Doctor
from app.services.domains import DomainService
from app.services.generate import Generator
from app.services.jobs import JobService
from app.services.library import Library
from app.services.lineage import Lineage
from app.services.loaded_adapters import LoadedAdapters
from app.services.passages import SMALL_CORPUS_PASSAGES
from app.services.promotion import PromotionService
from app.services.readiness import Readiness
from app.services.request_checks import RequestChecker
from app.services.seeds import Limits
from app.services.served_names import ServedNames
from app.services.specialize import Specializer
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database
from app.storage.job_queue import JobQueue

RESEND_LEASES = 10  # a queued job is sent again after this many leases' time without a worker taking it


@dataclass(frozen=True, slots=True)
class Services:
    """What the API calls."""

    specializer: Specializer
    doctor: Doctor
    lineage: Lineage
    jobs: JobService
    domains: DomainService
    promotions: PromotionService
    adapters: AdapterService
    loaded: LoadedAdapters
    corpora: CorpusService
    names: ServedNames
    generator: Generator
    readiness: Readiness
    dispatcher: Dispatcher

    @classmethod
    def build(
        cls,
        *,
        database: Database,
        artifacts: ArtifactStore,
        queue: JobQueue,
        engine: Engine,
        clock: Callable[[], datetime],
        base: str,
        limits: Limits,
        lease_seconds: float,
        adapter_roots: Sequence[Path] = (),
        small_corpus_passages: int = SMALL_CORPUS_PASSAGES,
    ) -> Services:
        """``base`` is the name this service's base goes by in requests and jobs.

        ``adapter_roots``: folders that adapters may be loaded from by name. ``small_corpus_passages``: see the
        setting.
        """
        dispatcher = Dispatcher(
            database, queue, clock=clock, lease_seconds=lease_seconds, resend_seconds=RESEND_LEASES * lease_seconds
        )
        loaded = LoadedAdapters(database, engine, roots=adapter_roots, clock=clock)
        checker = RequestChecker(engine=engine, base=base, limits=limits, library=Library(database, artifacts))
        domains = DomainService(database, engine)
        return cls(
            specializer=Specializer(database, artifacts, engine, checker=checker, dispatcher=dispatcher, clock=clock),
            doctor=Doctor(engine, checker=checker),
            lineage=Lineage(database, artifacts),
            jobs=JobService(database, artifacts, clock=clock),
            domains=domains,
            promotions=PromotionService(database, artifacts, engine, domains=domains, clock=clock),
            adapters=AdapterService(database, artifacts, engine),
            loaded=loaded,
            corpora=CorpusService(
                database, artifacts, clock=clock, max_chars=limits.max_field_chars, small=small_corpus_passages
            ),
            names=ServedNames(database, engine, loaded, clock=clock),
            generator=Generator(database, artifacts, engine, loaded=loaded),
            readiness=Readiness(database, queue, engine),
            dispatcher=dispatcher,
        )
