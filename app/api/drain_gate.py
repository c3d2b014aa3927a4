"""Turns requests away while the process drains, and counts those it let in until their last byte is sent."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.errors import error_response
from app.core.errors import NotReady
from app.services.drain import Drain

ALWAYS_OPEN = frozenset({"/health", "/ready", "/metrics", "/engine"})  # whoever watches the process may go on


class DrainGate:
    """Middleware that answers 503 with Retry-After once the drain has begun."""

    def __init__(self, app: ASGIApp, *, drain: Drain) -> None:
        self._app, self._drain = app, drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ALWAYS_OPEN:
            await self._app(scope, receive, send)
            return
        try:
            self._drain.enter()
        except NotReady as error:
            response = error_response(error, path=scope["path"])
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._drain.leave()
