"""The end of serving: no new request is let in, those in flight may finish. Knows nothing of HTTP or signals."""

from __future__ import annotations

from collections.abc import Callable

from app.core.errors import NotReady
from app.services.readiness import Check


class Drain:
    """Counts the requests in flight. Belongs to one event loop: nothing here locks."""

    def __init__(self) -> None:
        self.num_running = 0
        self.has_begun = False
        self.give_up: Callable[[], None] = lambda: None  # ends what still runs; may block

    def enter(self) -> None:
        """A request comes; raises NotReady once the end has begun."""
        if self.has_begun:
            raise NotReady("the service is shutting down and takes no new requests; ask again soon")
        self.num_running += 1

    def leave(self) -> None:
        """A request that was let in has been answered."""
        self.num_running -= 1

    def begin(self) -> None:
        """Let nobody in from here on."""
        self.has_begun = True

    def check(self) -> Check:
        """Not ok once the end has begun, so that whoever balances load looks elsewhere."""
        if self.has_begun:
            return Check(False, f"shutting down, {self.num_running} requests in flight")
        return Check(True, "takes requests")
