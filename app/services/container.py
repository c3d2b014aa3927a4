"""All services of one process, put together from what the composition root opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from app.core.ports import Engine
from app.services.adapters import AdapterService
from app.services.corpora import CorpusService
from app.services.dataset_rows import DatasetRows
from app.services.dispatch import Dispatcher
from app.services.doctor import Doctor
from app.services.domains import DomainService
from app.services.estimate import Estimator
from app.services.event_stream import EventFeed
from app.services.fine_tuning import FineTuner
from app.services.forecast import Forecaster
from app.services.generate import Generator
from app.services.job_moves import JobMover
from app.services.jobs import JobService
from app.services.lease import LeaseService
from app.services.library import Library
from app.services.lineage import Lineage
from app.services.loaded_adapters import LoadedAdapters
from app.services.passages import SMALL_CORPUS_PASSAGES
from app.services.promotion import PromotionService
from app.services.readiness import Readiness
from app.services.request_checks import RequestChecker
from app.services.review import Review
from app.services.row_checks import RowChecker
from app.services.seeds import Limits
from app.services.served_names import ServedNames
from app.services.specialize import Specializer
from app.services.uploaded_files import UploadedFiles
from app.services.webhook_options import WebhookOptions
from app.services.webhooks import WebhookSender
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database
from app.storage.job_queue import JobQueue


@dataclass(frozen=True, slots=True)
class Services:
    """What the API calls."""

    specializer: Specializer
    estimator: Estimator
    doctor: Doctor
    lineage: Lineage
    jobs: JobService
    feed: EventFeed
    mover: JobMover
    rows: DatasetRows
    review: Review
    domains: DomainService
    promotions: PromotionService
    adapters: AdapterService
    loaded: LoadedAdapters
    corpora: CorpusService
    files: UploadedFiles
    tuner: FineTuner
    names: ServedNames
    generator: Generator
    readiness: Readiness
    dispatcher: Dispatcher
    webhooks: WebhookSender

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
        webhooks: WebhookOptions | None = None,
    ) -> Services:
        """``base`` is the name this service's base goes by in requests and jobs.

        ``adapter_roots``: folders that adapters may be loaded from by name. ``small_corpus_passages``: see the
        setting. ``webhooks`` None: none are taken or sent.
        """
        leases = LeaseService(database, artifacts, clock=clock, lease_seconds=lease_seconds)
        dispatcher = Dispatcher(database, queue, leases=leases, clock=clock, lease_seconds=lease_seconds)
        loaded = LoadedAdapters(database, engine, roots=adapter_roots, clock=clock)
        webhooks = webhooks or WebhookOptions()
        library = Library(database, artifacts)
        checker = RequestChecker(engine=engine, base=base, limits=limits, library=library, webhooks=webhooks)
        domains = DomainService(database, engine)
        forecaster = Forecaster(database, engine)
        specializer = Specializer(
            database, artifacts, engine, checker=checker, forecaster=forecaster, dispatcher=dispatcher, clock=clock
        )
        jobs = JobService(database, artifacts, clock=clock)
        files = UploadedFiles(database, artifacts, clock=clock, limits=limits)
        rows_checked = RowChecker(database, artifacts, tokens=engine, limits=limits)
        review = Review(database, artifacts, checker=rows_checked, clock=clock)
        return cls(
            specializer=specializer,
            estimator=Estimator(database, engine, checker=checker, forecaster=forecaster, clock=clock),
            doctor=Doctor(engine, checker=checker),
            lineage=Lineage(database, artifacts),
            jobs=jobs,
            feed=EventFeed(database),
            mover=JobMover(
                database,
                artifacts,
                dispatcher=dispatcher,
                review=review,
                clock=clock,
                lease_seconds=lease_seconds,
            ),
            rows=DatasetRows(database, artifacts),
            review=review,
            domains=domains,
            promotions=PromotionService(database, artifacts, engine, domains=domains, clock=clock),
            adapters=AdapterService(database, artifacts, engine),
            loaded=loaded,
            corpora=CorpusService(
                database, artifacts, clock=clock, max_chars=limits.max_field_chars, small=small_corpus_passages
            ),
            files=files,
            tuner=FineTuner(database, artifacts, specializer=specializer, files=files, clock=clock, base=base),
            names=ServedNames(database, engine, loaded, clock=clock),
            generator=Generator(database, artifacts, engine, loaded=loaded),
            readiness=Readiness(database, queue, engine),
            dispatcher=dispatcher,
            webhooks=WebhookSender(database, webhooks, clock=clock),
        )
