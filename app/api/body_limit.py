"""Refuses request bodies that are too large before they are read: by their declared length, else while they arrive.

Plain ASGI, so that it stands before every parser. Knows nothing about what a body holds.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import error_response
from app.core.errors import Problem, TooLarge


class BodyLimit:
    """Middleware that answers 413 to more than ``max_bytes`` of body."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif _declared_bytes(scope) > self._max_bytes:
            await self._refuse(scope, receive, send)
        else:
            await self._count(scope, receive, send)

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        num_bytes = 0
        started = False

        async def counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_bytes:
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
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = f"larger than {self._max_bytes:,} bytes (SELFSPEC_MAX_UPLOAD_BYTES)"
        response = error_response(TooLarge([Problem("body", reason)]), path=scope["path"])
        response.headers["Connection"] = "close"  # the rest of the body is not worth reading
        await response(scope, receive, send)


class _TooMuch(BaseException):
    """Passes every ``except Exception`` between the body's reader and the middleware."""


def _declared_bytes(scope: Scope) -> int:
    declared = Headers(scope=scope).get("content-length", "")
    return int(declared) if declared.isdecimal() else 0
