"""What ends a job's process and is not the job's failure: the database is away, the disk is full or read-only.

The job then waits in the queue, and goes on from what it has made once the cause is gone.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass

from app.core.errors import DatabaseAway, DiskFull
from app.core.states import WaitsFor

_DISK_NUMBERS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_DISK_WORDS = ("No space left on device", "Disk quota exceeded", "Read-only file system")  # of libraries that write


@dataclass(frozen=True, slots=True)
class Interruption:
    """Why, for people; and what the job waits for, if that can be seen from outside."""

    reason: str
    waits_for: WaitsFor | None


def what_interrupts(error: BaseException) -> Interruption | None:
    """What was in the way, if ``error`` or what caused it is no failure of the job."""
    for cause in _causes(error):
        if isinstance(cause, DatabaseAway):
            return Interruption(cause.message, None)
        if isinstance(cause, DiskFull):
            return Interruption(cause.message, WaitsFor.DISK)
        if (isinstance(cause, OSError) and cause.errno in _DISK_NUMBERS) or any(
            words in str(cause) for words in _DISK_WORDS
        ):
            return Interruption(f"the disk is full or read-only: {cause}", WaitsFor.DISK)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
