"""Answers in OpenAI's shape while they are written: one ``data:`` line a part, the last one is ``[DONE]``.

A failure under way is a line ``{"error": …}``, and nothing follows it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from app.api.answering import Event
from app.api.openai_errors import openai_error
from app.api.openai_shapes import chat_logprobs, completion_logprobs, finish_reason, has_timed_out, usage
from app.core.errors import SelfspecError
from app.core.records import Completion, Piece

DONE = b"data: [DONE]\n\n"

Choice = dict[str, Any]


class Choices(Protocol):
    """What one kind of stream says; remembers what it has said."""

    def write(self, index: int, piece: Piece) -> Sequence[Choice]:
        """The next part of an answer."""

    def end(self, index: int, completion: Completion) -> Sequence[Choice]:
        """The end of an answer."""


async def data_lines(
    events: AsyncIterable[Sequence[Event]], choices: Choices, *, head: Mapping[str, Any], include_usage: bool
) -> AsyncIterator[bytes]:
    """The stream's bytes; ``head`` is what every chunk says: id, object, created, model."""
    told = {**head, "usage": None} if include_usage else head
    ended: list[Completion] = []
    async for some in events:
        lines: list[bytes] = []
        for index, event in some:
            if isinstance(event, SelfspecError):
                yield b"".join([*lines, _line({"error": openai_error(event)})])
                return
            if isinstance(event, Piece):
                said = choices.write(index, event)
            else:
                said = choices.end(index, event.completion)
                ended.append(event.completion)
            lines += [_line({**told, "choices": [choice]}) for choice in said]
        yield b"".join(lines)
    if include_usage:
        yield _line({**head, "choices": [], "usage": usage([ended]).model_dump()})
    yield DONE


class ChatChoices:
    """The role comes with the answer's first part, not before: it is no sign of life."""

    def __init__(self, *, with_logprobs: bool) -> None:
        self._with_logprobs = with_logprobs
        self._begun: set[int] = set()

    def write(self, index: int, piece: Piece) -> Sequence[Choice]:
        told = chat_logprobs(piece.logprobs).model_dump() if self._with_logprobs else None
        return [*self._begin(index), _delta(index, {"content": piece.text}, logprobs=told)]

    def end(self, index: int, completion: Completion) -> Sequence[Choice]:
        return [*self._begin(index), {**_delta(index, {}), **_ending(completion)}]

    def _begin(self, index: int) -> Sequence[Choice]:
        if index in self._begun:
            return []
        self._begun.add(index)
        return [_delta(index, {"role": "assistant", "content": ""})]


class CompletionChoices:
    """Remembers how long each answer is, for the offsets of its tokens."""

    def __init__(self, *, with_logprobs: bool) -> None:
        self._with_logprobs = with_logprobs
        self._written: Counter[int] = Counter()

    def write(self, index: int, piece: Piece) -> Sequence[Choice]:
        told = None
        if self._with_logprobs:
            told = completion_logprobs(piece.logprobs, offset=self._written[index]).model_dump()
        self._written[index] += len(piece.text)
        return [_text(index, piece.text, logprobs=told)]

    def end(self, index: int, completion: Completion) -> Sequence[Choice]:
        return [{**_text(index, ""), **_ending(completion)}]


def _delta(index: int, delta: dict[str, str], *, logprobs: Any = None) -> Choice:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}


def _text(index: int, text: str, *, logprobs: Any = None) -> Choice:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": None}


def _ending(completion: Completion) -> dict[str, Any]:
    timed_out = {"timed_out": True} if has_timed_out(completion) else {}
    return {"finish_reason": finish_reason(completion), **timed_out}


def _line(content: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(content)}\n\n".encode("ascii")
