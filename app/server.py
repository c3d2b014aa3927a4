"""The API process: ``python -m app.server``. Runs the application under uvicorn and ends it in order.

SIGTERM or Ctrl-C: new requests are answered 503 while those in flight finish, for the drain's seconds at most; then the
engine is closed, which ends the rest with an error they can still tell; then the sockets close. A second Ctrl-C ends
at once.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys

import uvicorn

from app import logs
from app.core.errors import SelfspecError
from app.main import create_app
from app.services.drain import Drain
from app.settings import Settings

log = logging.getLogger("app.server")  # not __main__

LAST_SECONDS = 5  # for the errors of requests that were given up, and for callers who read slowly
_LOOK_SECONDS = 0.05


class DrainingServer(uvicorn.Server):
    """uvicorn that drains before it closes its sockets."""

    def __init__(self, config: uvicorn.Config, *, drain: Drain, drain_seconds: float) -> None:
        super().__init__(config)
        self._drain, self._drain_seconds = drain, drain_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn on its event loop once it was told to end."""
        self._drain.begin()
        log.info("draining: %d requests in flight, %g s at most", self._drain.num_running, self._drain_seconds)
        if not await self._is_idle_within(self._drain_seconds):
            log.warning("giving up %d requests that are still in flight", self._drain.num_running)
            giving_up = asyncio.get_running_loop().run_in_executor(None, self._drain.give_up)
            await self._is_idle_within(LAST_SECONDS)
            await giving_up
        await super().shutdown(sockets)

    async def _is_idle_within(self, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self._drain.num_running and not self.force_exit and loop.time() < until:
            await asyncio.sleep(_LOOK_SECONDS)
        return not self._drain.num_running


def main() -> None:
    """Serve until told to end; what a person can mend is one line and exit code 1."""
    settings = Settings()
    logs.configure(level=settings.log_level, style=settings.log_format)
    try:
        app = create_app()
    except SelfspecError as error:
        print(f"selfspec: {error.message}", file=sys.stderr)
        sys.exit(1)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=LAST_SECONDS,
    )
    server = DrainingServer(config, drain=app.state.drain, drain_seconds=settings.drain_s)
    server.run()
    if not server.started:
        sys.exit(3)


if __name__ == "__main__":
    main()
