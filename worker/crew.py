"""The slots of a worker: threads that each look for a job that may be taken, take it, and run it in a child process.

The broker only wakes them. A slot looks when it is woken, when it comes free and every few seconds; the job's row
decides who has it, and admission whether there is room.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.services.admission import Admission
from app.services.lease import Lease, LeaseService
from app.services.room import Room
from worker.outage import FIRST_SECONDS, MOST_SECONDS, Outage
from worker.supervise import Supervisor


@dataclass(slots=True)
class Slot:
    """One job at a time. ``promised``: bytes that the running one may come to need; None: none runs."""

    number: int
    gpu: str | None
    supervisor: Supervisor
    promised: int | None = None

    def outstanding(self) -> int:
        """Bytes of the promise that are not taken yet."""
        return max(0, self.promised - self.supervisor.memory_bytes()) if self.promised is not None else 0


class Crew:
    """All slots of this process."""

    def __init__(
        self,
        leases: LeaseService,
        admission: Admission,
        *,
        num_slots: int,
        gpus: Sequence[str],
        room: Callable[[str | None], Room],
        logs_dir: Path,
        look_seconds: float,
        heartbeat_seconds: float,
    ) -> None:
        """``gpus``: dealt out to the slots if there are several. ``room``: of a GPU, or of the machine (None)."""
        self._leases, self._admission, self._room, self._look_seconds = leases, admission, room, look_seconds
        self._owner = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
        self._stopping = threading.Event()
        self._woken = threading.Condition()
        self._num_calls = 0
        self._choosing = threading.Lock()  # one slot at a time, or two would count on the same memory
        self._patience = Patience()
        self._slots = []
        for number in range(num_slots):
            gpu = gpus[number % len(gpus)] if gpus else None
            supervisor = Supervisor(
                leases,
                logs_dir=logs_dir,
                heartbeat_seconds=heartbeat_seconds,
                stopping=self._stopping,
                disk_trouble=admission.disk_trouble,
                environment=_gpu_environment(gpu) if gpu is not None and len(gpus) > 1 else None,
            )
            self._slots.append(Slot(number, gpu, supervisor))
        self._threads = [
            threading.Thread(target=self._work, args=(slot,), name=f"slot-{slot.number}", daemon=True)
            for slot in self._slots
        ]

    def start(self) -> None:
        """Begin to look for jobs."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Have idle slots look at once; returns at once."""
        with self._woken:
            self._num_calls += 1
            self._woken.notify_all()

    def stop(self) -> None:
        """Have all jobs given back; returns at once."""
        self._stopping.set()
        self.wake()

    def join(self) -> None:
        """Block until all slots have ended."""
        for thread in self._threads:
            thread.join()

    def _work(self, slot: Slot) -> None:
        outage = Outage()
        while not self._stopping.is_set():
            num_calls, wait_seconds = self._num_calls, self._look_seconds
            try:
                lease = self._next(slot)
                outage.end()
                if lease is not None:
                    self._run(slot, lease)
                    continue
            except Exception as error:  # whatever it is, the next look may succeed
                outage.note(error)
                wait_seconds = outage.wait_seconds
            self._wait(num_calls, wait_seconds)

    def _next(self, slot: Slot) -> Lease | None:
        """The lease of the oldest job that is free and that there is room for."""
        with self._choosing:
            if not (job_ids := [id for id in self._leases.candidates() if self._patience.is_over(id)]):
                return None
            room, trouble = self._room_left(slot), self._admission.disk_trouble()
            is_alone = all(other.promised is None for other in self._slots)
            for job_id in job_ids:
                needed = self._admission.admit(job_id, room=room, disk_trouble=trouble, is_alone=is_alone)
                if needed is not None and (lease := self._leases.take(job_id, owner=f"{self._owner}/{slot.number}")):
                    slot.promised = needed
                    return lease
        return None

    def _run(self, slot: Slot, lease: Lease) -> None:
        try:
            slot.supervisor.run(lease)
        finally:
            slot.promised = None
        self._patience.note(lease.job_id, was_interrupted=slot.supervisor.was_interrupted)

    def _room_left(self, slot: Slot) -> Room:
        """What is free, less what running jobs were promised and have not taken. A GPU is counted as it is."""
        room = self._room(slot.gpu)
        if slot.gpu is not None:
            return room
        return Room(room.name, max(0, room.free - sum(other.outstanding() for other in self._slots)), room.total)

    def _wait(self, num_calls: int, seconds: float) -> None:
        with self._woken:
            self._woken.wait_for(lambda: self._num_calls != num_calls, timeout=seconds)


class Patience:
    """Leaves a job alone for a while that was interrupted again and again, longer each time."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._counts: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def note(self, job_id: str, *, was_interrupted: bool) -> None:
        if not was_interrupted:
            self._counts.pop(job_id, None)
            self._until.pop(job_id, None)
            return
        count = self._counts[job_id] = self._counts.get(job_id, 0) + 1
        seconds = 0.0 if count == 1 else min(MOST_SECONDS, FIRST_SECONDS * 2.0**count)
        self._until[job_id] = self._monotonic() + seconds

    def is_over(self, job_id: str) -> bool:
        return self._monotonic() >= self._until.get(job_id, 0.0)


def _gpu_environment(gpu: str) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
