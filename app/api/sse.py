"""Server-sent events: an answer that is sent while it is written. Knows nothing about what the events say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Mapping
from typing import Protocol

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from app.api.waiting import until_left


class Closable(Protocol):
    """What a stream holds."""

    def close(self) -> None:
        """Let go of it, which ends the chunks too; harmless at any time."""


class EventStream(Response):
    """Sends ``chunks`` as they come, one write each. ``stream`` is closed when the caller leaves, and at the end."""

    media_type = "text/event-stream"

    def __init__(self, stream: Closable, chunks: AsyncIterable[bytes], *, headers: Mapping[str, str]) -> None:
        super().__init__(headers={**headers, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]  # nobody knows it yet
        self._stream, self._chunks = stream, chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = asyncio.ensure_future(until_left(Request(scope, receive)))
        left.add_done_callback(lambda _: self._stream.close())
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for chunk in self._chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            left.cancel()
            self._stream.close()
