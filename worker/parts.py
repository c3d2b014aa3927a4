"""Puts a worker's parts together, as its settings say."""

from __future__ import annotations

import sys
from functools import partial

from app.bootstrap import Stores, base_bytes
from app.services.admission import Admission
from app.services.dispatch import Dispatcher
from app.services.lease import LeaseService
from app.services.room import Room, gpu_room, host_room
from app.services.worker_beat import WorkerBeat
from app.settings import Settings
from worker.crew import Crew
from worker.gpus import visible_gpus
from worker.pulse import Pulse


def make_leases(stores: Stores) -> LeaseService:
    """Of this worker's jobs."""
    settings = stores.settings
    return LeaseService(
        stores.database,
        stores.artifacts,
        clock=stores.clock,
        lease_seconds=settings.lease_seconds,
        max_deaths=settings.max_deaths,
    )


def make_crew(stores: Stores) -> Crew:
    """As many slots as jobs run at once, not at work yet."""
    settings, gpus = stores.settings, gpus_of(stores.settings)
    admission = Admission(
        stores.database,
        data_dir=settings.data_dir,
        clock=stores.clock,
        device="cuda" if gpus else "cpu",
        job_memory_bytes=settings.job_memory_bytes,
        base_bytes=partial(base_bytes, settings),
        min_free_bytes=settings.min_free_bytes,
    )
    return Crew(
        make_leases(stores),
        admission,
        num_slots=num_slots_of(settings),
        gpus=gpus,
        room=room_of,
        logs_dir=settings.logs_dir,
        look_seconds=settings.look_seconds,
        heartbeat_seconds=settings.heartbeat_seconds,
    )


def make_pulse(stores: Stores) -> Pulse:
    """The sign that this worker lives."""
    settings = stores.settings
    slots = num_slots_of(settings)
    return Pulse(WorkerBeat(stores.database, slots=slots, every_seconds=settings.heartbeat_seconds, clock=stores.clock))


def make_dispatcher(stores: Stores) -> Dispatcher:
    """What sweeps."""
    return Dispatcher(
        stores.database,
        stores.queue,
        leases=make_leases(stores),
        clock=stores.clock,
        lease_seconds=stores.settings.lease_seconds,
    )


def gpus_of(settings: Settings) -> tuple[str, ...]:
    """Those that jobs compute on; none where they compute on the processor."""
    return () if settings.engine == "fake" or settings.device == "cpu" else visible_gpus()


def num_slots_of(settings: Settings) -> int:
    """Jobs at once: what the setting says, else one a GPU, else one."""
    return settings.worker_slots or max(1, len(gpus_of(settings)))


def room_of(gpu: str | None) -> Room:
    """Memory of a GPU, without bounds where nobody can tell; None: of this machine."""
    if gpu is None:
        return host_room()
    return gpu_room(gpu) or Room(f"memory of GPU {gpu}", sys.maxsize, sys.maxsize)
