"""Refuses request bodies that are too large before they are read: by their declared length, else while they arrive.

Plain ASGI, so that it stands before every parser. Knows nothing about what a body holds.
"""

from __future__ import annotations

from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import error_response
from app.core.errors import Problem, TooLarge

CORPORA = "/corpora"  # whose body is written to disk as it comes, so it may be larger


class Limit(NamedTuple):
    """Most bytes of a body, and the variable that says so."""

    num_bytes: int
    variable: str


class BodyLimit:
    """Middleware that answers 413 to a body that is too large."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_corpus_bytes: int) -> None:
        self._app = app
        self._limit = Limit(max_bytes, "SELFSPEC_MAX_UPLOAD_BYTES")
        self._corpus_limit = Limit(max_corpus_bytes, "SELFSPEC_MAX_CORPUS_BYTES")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._corpus_limit if scope["path"] == CORPORA else self._limit
        if _declared_bytes(scope) > limit.num_bytes:
            await _refuse(scope, receive, send, limit)
        else:
            await self._count(scope, receive, send, limit)

    async def _count(self, scope: Scope, receive: Receive, send: Send, limit: Limit) -> None:
        num_bytes = 0
        started = False

        async def counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > limit.num_bytes:
                raise _TooMuch
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, counted, watched)
        except _TooMuch:
            if started:
                raise
            await _refuse(scope, receive, send, limit)


async def _refuse(scope: Scope, receive: Receive, send: Send, limit: Limit) -> None:
    reason = f"larger than {limit.num_bytes:,} bytes ({limit.variable})"
    response = error_response(TooLarge([Problem("body", reason)]), path=scope["path"])
    response.headers["Connection"] = "close"  # the rest of the body is not worth reading
    await response(scope, receive, send)


class _TooMuch(BaseException):
    """Passes every ``except Exception`` between the body's reader and the middleware."""


def _declared_bytes(scope: Scope) -> int:
    declared = Headers(scope=scope).get("content-length", "")
    return int(declared) if declared.isdecimal() else 0
