"""Whether there is room for one more job, asked before it is taken: memory for its process, and a disk to write to.

A job without room stays queued, says what it waits for, and is taken as soon as there is room. Where it would need
more than there is in all, waiting would not help: it is tried with a warning once nothing else of this worker runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from app.core.errors import DiskFull
from app.core.event_types import EventType
from app.core.states import WaitsFor
from app.models import EventLevel, Job, Throughput
from app.services.room import Room
from app.storage.database import Database
from app.storage.disk import check_space

_PEAKS = 200  # stages of past jobs that are looked at


def assumed_bytes(file_bytes: int, *, device: str) -> int:
    """What a job needs on a base that none has run on yet, by the size of its files; 0 where they are not here yet.

    cpu: weights in float32 beside files of two bytes each, as much again for caches and training, 1 GB of libraries.
    cuda: weights as in the files or smaller, 2 GB for caches, training and the driver.
    """
    times, fixed = (1, 2_000_000_000) if device == "cuda" else (3, 1_000_000_000)
    return times * file_bytes + fixed if file_bytes else 0


class Admission:
    """Asked with the room there is, so that one look at the machine serves many jobs."""

    def __init__(
        self,
        database: Database,
        *,
        data_dir: Path,
        clock: Callable[[], datetime],
        device: str,
        job_memory_bytes: int | None,
        base_bytes: Callable[[], int],
        min_free_bytes: int,
    ) -> None:
        """``device``: cpu or cuda, where jobs compute. ``base_bytes``: the size of the base's files, 0 if not here.

        ``job_memory_bytes``: what a job needs, whatever was measured; None: what is measured, or else assumed.
        ``min_free_bytes``: of the data folder's disk, so that a job can write.
        """
        self._database, self._data_dir, self._clock = database, data_dir, clock
        self._device, self._job_memory_bytes, self._base_bytes = device, job_memory_bytes, base_bytes
        self._min_free_bytes = min_free_bytes

    def disk_trouble(self) -> str | None:
        """Why nothing can be written to the data folder, in words; None: it can."""
        try:
            check_space(self._data_dir, num_bytes=self._min_free_bytes)
        except DiskFull as error:
            return error.message
        return None

    def admit(self, job_id: str, *, room: Room, disk_trouble: str | None, is_alone: bool) -> int | None:
        """The bytes a job is promised, or None: it waits, and its events say for what.

        ``is_alone``: nothing else of this worker runs, so that waiting for its own jobs would give no more room.
        """
        with self._database.session(read_only=True) as uow:
            job = uow.jobs.get(job_id)
            needed = self._needed(job, uow.throughputs.newest(job.base, limit=_PEAKS))
        if disk_trouble is not None:
            self._wait(job, WaitsFor.DISK, "waiting_for_disk", disk_trouble, {})
            return None
        if needed <= room.free:
            return needed
        figures = {"needed_bytes": needed, "free_bytes": room.free, "total_bytes": room.total}
        told = f"the job needs about {needed / 1e9:.1f} GB, {room} (SELFSPEC_JOB_MEMORY_BYTES sets another need)"
        if needed > room.total and is_alone:
            self._tell(job_id, "memory_may_not_do", f"{told}; it is tried all the same", figures)
            return needed
        self._wait(job, WaitsFor.MEMORY, "waiting_for_memory", told, figures)
        return None

    def _needed(self, job: Job, past: Sequence[Throughput]) -> int:
        if self._job_memory_bytes is not None:
            return self._job_memory_bytes
        peaks = (row.peak_bytes for row in past if row.peak_bytes and f"; {self._device}, " in row.machine)
        return max(peaks, default=assumed_bytes(self._base_bytes(), device=self._device))

    def _wait(self, job: Job, waits_for: WaitsFor, type: EventType, told: str, figures: Mapping[str, int]) -> None:
        """Say so once, however often it is looked at."""
        if job.waits_for is waits_for:
            return
        with self._database.session() as uow:
            if uow.jobs.note_wait(job.id, waits_for):
                uow.events.add(job.id, type, told, now=self._clock(), level=EventLevel.WARNING, data=figures)
                uow.commit()

    def _tell(self, job_id: str, type: EventType, told: str, figures: Mapping[str, int]) -> None:
        with self._database.session() as uow:
            uow.events.add(job_id, type, told, now=self._clock(), level=EventLevel.WARNING, data=figures)
            uow.commit()
