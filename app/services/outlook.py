"""When jobs will end: what is left of each, and whose turn it is before.

What is left of the stage at work follows from its own pace, the more so the further it is; what is to come from the
plan and the times of past jobs. Jobs wait in the order in which they were made, and as many run side by side as do now.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self

from app.core.states import JobStatus, StageStatus
from app.models import Job, StageRun
from app.services.forecast import read_planned, span_of
from app.services.throughput import Experience
from app.storage.database import UnitOfWork

_MOST_SECONDS = 10 * 365 * 86400.0  # later is not told


@dataclass(frozen=True, slots=True)
class Prospect:
    """One job's. ``position``: 1 is the next to be taken up; None: it is not in the queue, or waits for a person.

    ``seconds_remaining``: of work, without the wait; ``seconds_until_end``: with it. None: nothing is known.
    """

    position: int | None = None
    seconds_remaining: float | None = None
    seconds_until_end: float | None = None

    def finish(self, now: datetime) -> datetime | None:
        return None if self.seconds_until_end is None else now + timedelta(seconds=self.seconds_until_end)


@dataclass(slots=True)
class Outlook:
    """All jobs that are queued or running."""

    jobs: dict[str, Prospect] = field(default_factory=dict)
    num_waiting: int = 0
    num_held: int = 0  # that wait for a person
    wait_seconds: float | None = 0.0  # of one more job, until it is taken up; None: nothing is known

    @classmethod
    def read(cls, uow: UnitOfWork, now: datetime) -> Self:
        """Two queries, and two a base."""
        experiences: dict[str, Experience] = {}
        line: list[tuple[Job, float]] = []
        for job, runs in uow.stage_runs.open():
            if job.base not in experiences:
                experiences[job.base] = Experience.read(uow, job.base)
            line.append((job, _left(job, runs, experiences[job.base], now)))
        return cls()._fill(line)

    def _fill(self, line: Sequence[tuple[Job, float]]) -> Self:
        free = sorted(left for job, left in line if job.status is JobStatus.RUNNING) or [0.0]
        for job, left in line:
            if job.status is JobStatus.RUNNING:
                self.jobs[job.id] = Prospect(None, _told(left), _told(left))
            elif job.waits_for is not None and job.waits_for.is_for_people:
                self.num_held += 1
                self.jobs[job.id] = Prospect(None, _told(left), None)
            else:
                self.num_waiting += 1
                end = heapq.heappop(free) + left
                heapq.heappush(free, end)
                self.jobs[job.id] = Prospect(self.num_waiting, _told(left), _told(end))
        self.wait_seconds = _told(free[0])
        return self


def seconds_worked(run: StageRun, now: datetime) -> float:
    """On a stage, over all attempts; of one at work up to now."""
    is_at_work = run.status is StageStatus.RUNNING and run.worked_at is not None
    since = (now - run.worked_at).total_seconds() if is_at_work and run.worked_at else 0.0
    return run.worked_seconds + max(0.0, since)


def seconds_remaining(*, done: int, total: int | None, seconds: float) -> float | None:
    """What is left of a stage at the pace so far; None until something is done."""
    return None if total is None or done <= 0 else seconds / done * max(0, total - done)


def _left(job: Job, runs: Sequence[StageRun], experience: Experience, now: datetime) -> float:
    """Seconds of work; infinite where nothing is known."""
    if not runs:
        return math.inf
    start = experience.start if job.status is JobStatus.QUEUED else None
    return (start.seconds(1.0) if start else 0.0) + sum(_left_of(run, experience, now) for run in runs)


def _left_of(run: StageRun, experience: Experience, now: datetime) -> float:
    if run.status in (StageStatus.SUCCEEDED, StageStatus.SKIPPED):
        return 0.0
    planned, share = _planned_seconds(run, experience), _share(run)
    paced = seconds_remaining(done=run.done, total=run.total, seconds=seconds_worked(run, now))
    if paced is None:
        return max(0.0, planned - seconds_worked(run, now))
    return paced if planned == math.inf else share * paced + (1 - share) * (1 - share) * planned


def _planned_seconds(run: StageRun, experience: Experience) -> float:
    if run.planned is None:
        return math.inf
    sort, work = read_planned(run.planned)
    span = span_of(sort, work, experience, assumed_seconds=run.planned.get("assumed_seconds"))
    return math.inf if span is None else span.seconds


def _share(run: StageRun) -> float:
    """Of the stage that is done, 0 to 1."""
    return min(1.0, run.done / run.total) if run.total else 0.0


def _told(seconds: float) -> float | None:
    return seconds if seconds < _MOST_SECONDS else None
