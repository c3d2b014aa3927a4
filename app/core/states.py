"""The states of a job and of its stages, and the one table of moves that are allowed."""

from __future__ import annotations

from enum import StrEnum

from app.core.errors import Conflict


class JobStatus(StrEnum):
    """As OpenAI's fine-tuning API spells them."""

    VALIDATING_FILES = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """No worker has anything to do for it, unless somebody asks for another try."""
        return self in {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED}


MOVES: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.VALIDATING_FILES: frozenset({JobStatus.QUEUED, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.FAILED, JobStatus.CANCELLED}),
    # running → queued: it was paused, or its process or its worker went
    JobStatus.RUNNING: frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.QUEUED}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset({JobStatus.QUEUED}),  # retry
    JobStatus.CANCELLED: frozenset({JobStatus.QUEUED}),  # retry
}


def check_move(before: JobStatus, after: JobStatus) -> None:
    """Raise Conflict unless a job may go from ``before`` to ``after``."""
    if after not in MOVES[before]:
        raise Conflict(f"a job that is {before} cannot become {after}", param="status")


class WaitsFor(StrEnum):
    """Why a queued job is not simply the next: what it needs before it is taken up."""

    RESUME = "resume"  # it was paused
    REVIEW = "review"  # its dataset is to be looked at, then it is resumed
    MEMORY = "memory"
    DISK = "disk"

    @property
    def is_for_people(self) -> bool:
        """Only a request ends the wait; the others end by themselves."""
        return self in {WaitsFor.RESUME, WaitsFor.REVIEW}


class StageStatus(StrEnum):
    """Where one stage of a job stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"  # not needed: what it was for had been decided before
