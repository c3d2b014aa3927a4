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
from app.engine.fingerprint import fingerprint
from app.engine.pull import base_folder as find_base_folder
from app.engine.pull import find_here, is_pulled, pull
from app.services.diagnosis import BaseHere, Diagnosis, Surroundings
from app.services.retention import Retention
from app.services.retention_plan import Policy
from app.services.worker_beat import check_alive
from app.settings import Settings
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database
from app.storage.job_queue import PATIENCE, SWEEP_TASK, TASK, CeleryApp, JobQueue, make_celery

JOB_SLOTS = 4  # adapters of a job that are asked in one batch: the expert, its controls, the champion
API_CACHE_SHARE, JOB_CACHE_SHARE = 1 / 2, 1 / 8  # a job shares the machine with the API and with other jobs
RUN_JOB, SWEEP = TASK, SWEEP_TASK  # the names of the tasks that a worker knows
SEND = PATIENCE  # with what a worker sends one


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
    return make_celery(
        settings.resolved_broker_url, settings.broker_dir, queue=settings.queue, sweep_seconds=settings.lease_seconds
    )


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
    engine = make_engine(
        settings,
        num_slots=num_slots,
        max_waiting=settings.max_waiting if role == "api" else None,
        cache_share=API_CACHE_SHARE if role == "api" else JOB_CACHE_SHARE,
    )
    return Resources(settings, stores.database, stores.artifacts, stores.queue, engine, stores.clock)


def make_engine(
    settings: Settings, *, num_slots: int, max_waiting: int | None, cache_share: float = JOB_CACHE_SHARE
) -> Engine:
    """The engine the settings ask for. ``max_waiting`` None: whoever asks may ask for as much as it likes.

    ``cache_share``: of the memory that is free, for keys and values, unless the settings say how much.
    """
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
        cache_share=cache_share,
        prefix_bytes=settings.prefix_bytes,
        adapter_bytes=settings.adapter_bytes,
        adapter_device_bytes=settings.adapter_device_bytes,
        has_step_graphs=settings.cuda_graphs,
    )
    return TorchEngine(options, partial(pull_base, settings), sizes)


def migrate(settings: Settings) -> None:
    """Bring the database to the newest tables."""
    with Database(settings.resolved_database_url) as database:
        database.upgrade()


def check_worker(settings: Settings) -> None:
    """Raise NotReady unless a worker of this machine lives: a container's health check."""
    with Database(settings.resolved_database_url) as database:
        check_alive(database, within_seconds=settings.lease_seconds, clock=now)


def pull_base(settings: Settings, *, tell: Callable[[str], None] = lambda line: None) -> Path:
    """The folder of the configured base, fetched and verified if it is not here."""
    return pull(
        settings.base,
        models_dir=settings.resolved_models_dir,
        downloads_dir=settings.downloads_dir,
        accept_terms=settings.accept_terms,
        tell=tell,
    )


def build_retention(
    stores: Stores | Resources, *, days: float | None = None, num_bytes: int | None = None, with_unknown: bool = False
) -> Retention:
    """Retention by the settings, or by what is given in their place."""
    settings = stores.settings
    policy = Policy(
        days=settings.retention_days if days is None else days,
        num_bytes=settings.retention_bytes if num_bytes is None else num_bytes,
        with_unknown=with_unknown,
        roots=settings.resolved_adapter_roots,
    )
    return Retention(stores.database, stores.artifacts, policy=policy, logs_dir=settings.logs_dir, clock=stores.clock)


def build_diagnosis(stores: Stores) -> Diagnosis:
    """What ``selfspec doctor`` asks."""
    settings = stores.settings
    around = Surroundings(
        folders=(settings.data_dir, settings.artifacts_dir),
        min_free_bytes=settings.min_free_bytes,
        lease_seconds=settings.lease_seconds,
        heartbeat_seconds=settings.heartbeat_seconds,
        has_webhook_secret=settings.webhook_secret is not None,
    )
    return Diagnosis(
        stores.database,
        stores.artifacts,
        stores.queue,
        around=around,
        find_base=partial(find_base, settings),
        clock=stores.clock,
    )


def find_base(settings: Settings) -> BaseHere:
    """The configured base as it lies on this machine, with the fingerprints that it can have; fetches nothing."""
    if settings.engine == "fake":
        info = make_engine(settings, num_slots=1, max_waiting=None).wait_ready()
        return BaseHere(info.name, "", "", {info.quantization: info.fingerprint}, 0)
    folder = find_here(settings.base, settings.resolved_models_dir)
    if folder is None:
        return BaseHere(settings.base, f"{settings.base} is not on this machine", "selfspec models pull", {}, 0)
    wanted = ("nf4", "none") if settings.quantization == "auto" else (settings.quantization,)
    prints = {quantization: fingerprint(folder, quantization=quantization) for quantization in wanted}
    return BaseHere(settings.base, "", "", prints, base_bytes(settings))


def base_bytes(settings: Settings) -> int:
    """The size of the configured base's weights on this machine; 0 if they are not here."""
    folder = None if settings.engine == "fake" else find_here(settings.base, settings.resolved_models_dir)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) if folder else 0


def base_folder(settings: Settings) -> Path:
    """Where the configured base lies or will lie."""
    return find_base_folder(settings.base, settings.resolved_models_dir)


def describe_models(settings: Settings) -> Iterator[str]:
    """The catalogue, a line each."""
    for entry in CATALOGUE.values():
        here = "here" if is_pulled(entry.name, settings.resolved_models_dir) else "not fetched"
        yield f"{entry.name}  ({here}; {entry.licence})  {entry.about}"


def now() -> datetime:
    """The clock of this service: UTC."""
    return datetime.now(UTC)
