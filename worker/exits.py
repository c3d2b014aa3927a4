"""What the exit code of a job's process says. Any other is a death."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The last two as sysexits.h has them: an error of input or output, a failure that passes."""

    DONE = 0  # the job ended, or waits for a person
    LEASE_LOST = 3
    WORKER_GONE = 4
    NO_DISK = 74  # nothing can be written
    AWAY = 75  # the database does not answer
