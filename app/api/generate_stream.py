"""What a streamed /generate says: ``piece`` after ``piece``, then ``answer`` (or ``error``) for each answer.

The ``answer`` event holds the whole body that the same question gets without streaming.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from app.api.answering import Answers, Event, Stream
from app.api.schemas.generate import GenerateBody, LogprobBody
from app.core.errors import SelfspecError
from app.core.records import Piece


async def told(stream: Stream) -> AsyncIterator[bytes]:
    """Everything that came since the last time in one chunk, so that a busy engine does not cost a write a token."""
    async for events in stream:
        yield b"".join(_event(stream, event) for event in events)


def _event(stream: Stream, event: Event) -> bytes:
    index, what = event
    if isinstance(what, Piece):
        return _say("piece", {"index": index, "text": what.text, **_logprobs(what)})
    if isinstance(what, SelfspecError):
        return _say("error", {"index": index, "error": what.to_dict()})
    body = GenerateBody.of(Answers(stream.expert, stream.prompt, (what,)), what)
    return _say("answer", {"index": index, **body.model_dump(mode="json")})


def _say(event: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {event}\ndata: {json.dumps(data)}\n\n".encode("ascii")


def _logprobs(piece: Piece) -> dict[str, Any]:
    if not piece.logprobs:
        return {}
    return {"logprobs": [LogprobBody.of(one).model_dump(mode="json") for one in piece.logprobs]}
