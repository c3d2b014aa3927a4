"""Around everything else: gives each request its id and its notes, and tells observers when it has ended.

Knows nothing of what observers do with them. The id is the caller's ``X-Request-Id`` where that is a plain word.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Sequence
from urllib.parse import quote

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.request_notes import CURRENT, RequestNotes

log = logging.getLogger(__name__)

HEADER = "X-Request-Id"
_SANE = re.compile(r"[A-Za-z0-9._:-]{1,128}")

Observer = Callable[[RequestNotes], None]


def install(app: FastAPI, observers: Sequence[Observer]) -> None:
    """Stand before the framework's own outermost layer, so that the answer to a bug has an id too."""
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: Observe(build(), observers)  # type: ignore[method-assign]


class Observe:
    """Middleware: pieces of a streamed answer pass with one comparison each."""

    def __init__(self, app: ASGIApp, observers: Sequence[Observer]) -> None:
        self._app, self._observers = app, tuple(observers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        notes = _begin(scope)
        CURRENT.set(notes)  # the server gives every request a context of its own
        started = time.perf_counter()

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                notes.status = message["status"]
                MutableHeaders(scope=message)[HEADER] = notes.id
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            notes.seconds = time.perf_counter() - started
            notes.route = getattr(scope.get("route"), "path", notes.route)
            self._tell(notes)

    def _tell(self, notes: RequestNotes) -> None:
        for observer in self._observers:
            try:
                observer(notes)
            except Exception:
                log.exception("an observer of requests failed")


def _begin(scope: Scope) -> RequestNotes:
    headers = Headers(scope=scope)
    given = headers.get(HEADER, "")
    return RequestNotes(
        id=given if _SANE.fullmatch(given) else uuid.uuid4().hex,
        method=scope["method"],
        path=quote(scope["path"], safe="/@:"),  # a line break in it must not begin a line of the log
        started_at=time.time(),
        traceparent=headers.get("traceparent"),
    )
