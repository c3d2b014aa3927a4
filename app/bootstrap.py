"""The composition root: settings become resources. The only place that picks a real or a fake engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

from app.core.ports import Engine
from app.engine.catalogue import CATALOGUE
from app.engine.pull import base_folder as find_base_folder
from app.engine.pull import is_pulled, pull
from app.settings import Settings
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database
from app.storage.job_queue import TASK, CeleryApp, JobQueue, make_celery

JOB_SLOTS = 4  # adapters of a job that are asked in one batch: the expert, its controls, the champion
RUN_JOB = TASK  # the name of the one task a worker knows


@dataclass(frozen=True, slots=True)
class Stores:
    """What every process opens."""

    settings: Settings
    database: Database
    artifacts: ArtifactStore
    queue: JobQueue
    clock: Callable[[], datetime]

    def close(self) -> None:
        self.queue.close()
        self.database.dispose()


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process that runs the model opens: the stores and an engine."""

    settings: Settings
    database: Database
    artifacts: ArtifactStore
    queue: JobQueue
    engine: Engine
    clock: Callable[[], datetime]

    def close(self) -> None:
        self.engine.close()
        self.queue.close()
        self.database.dispose()


def build_celery(settings: Settings) -> CeleryApp:
    """The Celery application of the configured broker."""
    return make_celery(settings.resolved_broker_url, settings.broker_dir)


def build_stores(settings: Settings) -> Stores:
    """Database, artifacts and queue; loads no torch."""
    return Stores(
        settings=settings,
        database=Database(settings.resolved_database_url),
        artifacts=ArtifactStore(settings.artifacts_dir),
        queue=JobQueue(build_celery(settings)),
        clock=now,
    )


def build(settings: Settings, *, role: Literal["api", "job"]) -> Resources:
    """Stores and engine. The base loads in the background; a job's engine holds what the job compares."""
    stores = build_stores(settings)
    num_slots = settings.adapter_slots if role == "api" else min(JOB_SLOTS, settings.adapter_slots)
    engine = make_engine(settings, num_slots=num_slots, max_waiting=settings.max_waiting if role == "api" else None)
    return Resources(settings, stores.database, stores.artifacts, stores.queue, engine, stores.clock)


def make_engine(settings: Settings, *, num_slots: int, max_waiting: int | None) -> Engine:
    """The engine the settings ask for. ``max_waiting`` None: whoever asks may ask for as much as it likes."""
    if settings.engine == "fake":
        from app.engine.fake import FakeEngine

        return FakeEngine(slots=num_slots, base_name=settings.base)
    from app.engine.base import BaseOptions
    from app.engine.engine import EngineSizes, TorchEngine

    entry = CATALOGUE.get(settings.base)
    options = BaseOptions(
        name=settings.base,
        hub_id=entry.hub_id if entry else settings.base,
        quantization=settings.quantization,
        dtype=settings.dtype,
        device=settings.device,
        threads=settings.threads,
    )
    sizes = EngineSizes(
        num_slots=num_slots,
        max_rank=settings.max_lora_rank,
        max_batch=settings.max_batch,
        max_waiting=max_waiting,
        prefill_tokens=settings.prefill_tokens,
        cache_bytes=settings.cache_bytes,
        prefix_bytes=settings.prefix_bytes,
        adapter_bytes=settings.adapter_bytes,
        adapter_device_bytes=settings.adapter_device_bytes,
    )
    return TorchEngine(options, partial(pull_base, settings), sizes)


def migrate(settings: Settings) -> None:
    """Bring the database to the newest tables."""
    with Database(settings.resolved_database_url) as database:
        database.upgrade()


def pull_base(settings: Settings, *, tell: Callable[[str], None] = lambda line: None) -> Path:
    """The folder of the configured base, fetched and verified if it is not here."""
    return pull(
        settings.base,
        models_dir=settings.models_dir,
        downloads_dir=settings.downloads_dir,
        accept_terms=settings.accept_terms,
        tell=tell,
    )


def base_folder(settings: Settings) -> Path:
    """Where the configured base lies or will lie."""
    return find_base_folder(settings.base, settings.models_dir)


def describe_models(settings: Settings) -> Iterator[str]:
    """The catalogue, a line each."""
    for entry in CATALOGUE.values():
        here = "here" if is_pulled(entry.name, settings.models_dir) else "not fetched"
        yield f"{entry.name}  ({here}; {entry.licence})  {entry.about}"


def now() -> datetime:
    """The clock of this service: UTC."""
    return datetime.now(UTC)
