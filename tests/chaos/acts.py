"""How each kind of trouble is made. An act that finds no victim yet is tried again at the next look."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import psutil

from app.core.errors import NotReady
from app.storage.job_queue import JobQueue
from tests.chaos.look import Seen
from tests.chaos.plan import Trouble
from tests.chaos.processes import API, Keeper
from tests.chaos.stacks import Stack

MAX_KILLS = 2  # of one job's process or worker: more deaths in a row than the service forgives would fail it
NUM_DOUBLES = 5  # messages at once
PATIENCE_STAGES = 6  # of all jobs, before any stage will do
PATIENCE_LEASES = 10  # a frozen worker is woken after so many, whether its job was taken over or not


@dataclass(frozen=True, slots=True)
class Frozen:
    """A worker that was stopped while it held a job."""

    worker: str
    child: psutil.Process
    job_id: str
    attempt: int
    since: float  # monotonic seconds


class Saboteur:
    """Makes troubles; counts those that took place."""

    def __init__(self, keeper: Keeper, stack: Stack, queue: JobQueue, *, chance: random.Random, lease: float) -> None:
        """``lease`` in seconds."""
        self._keeper, self._stack, self._queue, self._chance, self._lease = keeper, stack, queue, chance, lease
        self._kills = Counter[str]()  # of processes and workers, frozen ones too, by job
        self._frozen: Frozen | None = None
        self.counts = Counter[str]()

    def make(self, trouble: Trouble, jobs: Mapping[str, Seen], progress: int) -> bool:
        """Whether it took place. A victim at the wanted stage is waited for, but not for ever."""
        if progress > trouble.at + PATIENCE_STAGES:
            trouble = replace(trouble, stage=None)
        has_happened: bool = getattr(self, f"_{trouble.act.name.lower()}")(trouble, jobs)
        self.counts[trouble.act] += has_happened
        return has_happened

    def thaw(self, jobs: Mapping[str, Seen] | None) -> None:
        """Wake a frozen worker once it has lost its job (``jobs`` None: in any case)."""
        if (frozen := self._frozen) is None:
            return
        job = jobs and jobs[frozen.job_id]
        if has_lost := bool(job and (job.attempt > frozen.attempt or not job.is_running)):
            self.counts["woken_without_lease"] += 1
        if jobs is None or has_lost or time.monotonic() > frozen.since + PATIENCE_LEASES * self._lease:
            self._keeper.thaw(frozen.worker, frozen.child)
            self._frozen = None

    def _kill_child(self, trouble: Trouble, jobs: Mapping[str, Seen]) -> bool:
        if (found := self._find(trouble, jobs)) is None:
            return False
        job, _, child = found
        try:
            child.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return False
        self._kills[job.id] += 1
        return True

    def _kill_worker(self, trouble: Trouble, jobs: Mapping[str, Seen]) -> bool:
        if (found := self._find(trouble, jobs)) is None:
            return False
        job, worker, _ = found
        self._keeper.kill(worker)
        self._kills[job.id] += 1
        return True

    def _kill_api(self, _: Trouble, __: Mapping[str, Seen]) -> bool:
        self._keeper.kill(API)
        return True

    def _flush(self, _: Trouble, __: Mapping[str, Seen]) -> bool:
        self._stack.flush()
        return True

    def _cut(self, _: Trouble, __: Mapping[str, Seen]) -> bool:
        assert self._stack.cut is not None
        self._stack.cut()
        return True

    def _double(self, _: Trouble, jobs: Mapping[str, Seen]) -> bool:
        """To jobs of every status alike."""
        by_status: dict[str, list[str]] = {}
        for job in jobs.values():
            by_status.setdefault(job.status, []).append(job.id)
        try:
            for _number in range(NUM_DOUBLES if by_status else 0):
                self._queue.send(self._chance.choice(by_status[self._chance.choice(sorted(by_status))]))
        except NotReady:
            return False
        return bool(by_status)

    def _freeze(self, trouble: Trouble, jobs: Mapping[str, Seen]) -> bool:
        """One at a time: somebody must be left to take over."""
        if self._frozen is not None or (found := self._find(trouble, jobs)) is None:
            return False
        job, worker, child = found
        self._keeper.freeze(worker, child)
        self._kills[job.id] += 1
        self._frozen = Frozen(worker, child, job.id, job.attempt, time.monotonic())
        return True

    def _find(self, trouble: Trouble, jobs: Mapping[str, Seen]) -> tuple[Seen, str, psutil.Process] | None:
        """A job at work on what the trouble wants, with its worker and its process."""
        wanted = [
            job
            for job in jobs.values()
            if job.is_running and self._kills[job.id] < MAX_KILLS and (job.stage or "").startswith(trouble.stage or "")
        ]
        self._chance.shuffle(wanted)
        for job in wanted:
            found = self._keeper.child_of(job.id)
            if found is not None and not self._keeper.is_frozen(found[0]):
                return job, *found
        return None
