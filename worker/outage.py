"""Something that the worker needs and that is away for a while: told to the log when it goes and when it is back."""

from __future__ import annotations

import logging

from app.core.errors import SelfspecError

log = logging.getLogger(__name__)

FIRST_SECONDS, MOST_SECONDS = 0.5, 10.0


class Outage:
    """Counts the tries of one thread, so that it asks less and less often."""

    def __init__(self) -> None:
        self._tries = 0

    @property
    def wait_seconds(self) -> float:
        """Until the next try."""
        return min(MOST_SECONDS, FIRST_SECONDS * 2.0 ** max(0, self._tries - 1))

    def note(self, error: Exception) -> None:
        """A try failed; what nobody expected is told with its whole story."""
        if self._tries == 0:
            log.warning("the worker waits: %s", error, exc_info=not isinstance(error, SelfspecError))
        self._tries += 1

    def end(self) -> None:
        """A try succeeded."""
        if self._tries:
            log.info("the worker goes on, after %d tries", self._tries)
        self._tries = 0
