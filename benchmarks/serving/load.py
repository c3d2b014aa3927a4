"""A load client that costs the machine next to nothing: it shares the cores with the server it measures.

While a measurement runs it only notes what arrived when; HTTP, server-sent events and JSON are read afterwards. Every
request has a connection of its own. Knows no server's name and no statistics.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h11

PATH = "/v1/completions"
TIMEOUT_SECONDS = 900.0
_Part = tuple[float, bytes]  # when it arrived, what


@dataclass(frozen=True, slots=True)
class Sample:
    """One answered (or failed) request; times in seconds of one clock, ``times`` those of the pieces with text."""

    started: float
    times: tuple[float, ...]
    text: str
    num_tokens: int
    prompt_tokens: int | None  # None: the server did not say
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int
    headers: tuple[tuple[str, str], ...] = ()


def drive(address: Address, bodies: Sequence[Mapping[str, Any]], *, concurrency: int) -> list[Sample]:
    """Send all, never more than ``concurrency`` at once, each as soon as one ends; samples in the order sent."""
    payloads = [_http(address, body) for body in bodies]
    raw = asyncio.run(_drive(address, payloads, concurrency=concurrency))
    return [_read(started, parts, failure) for started, parts, failure in raw]


async def _drive(
    address: Address, payloads: Sequence[bytes], *, concurrency: int
) -> list[tuple[float, list[_Part], str]]:
    answers: dict[int, tuple[float, list[_Part], str]] = {}
    waiting = iter(enumerate(payloads))

    async def work() -> None:
        for position, payload in waiting:
            answers[position] = await send(address, payload)

    await asyncio.gather(*(work() for _ in range(min(concurrency, len(payloads)))))
    return [answers[position] for position in range(len(payloads))]


async def send(address: Address, payload: bytes) -> tuple[float, list[_Part], str]:
    """One exchange: when it began, what arrived when, and why it broke off (empty: it did not)."""
    loop = asyncio.get_running_loop()
    recorder = _Recorder(loop.create_future())
    started = time.perf_counter()
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            transport, _ = await loop.create_connection(lambda: recorder, address.host, address.port)
            try:
                transport.write(payload)
                await recorder.closed
            finally:
                transport.abort()
    except (OSError, TimeoutError) as error:
        return started, recorder.parts, repr(error)
    return started, recorder.parts, ""


class _Recorder(asyncio.Protocol):
    """Notes what arrives until the server closes."""

    def __init__(self, closed: asyncio.Future[None]) -> None:
        self.parts: list[_Part] = []
        self.closed = closed

    def data_received(self, data: bytes) -> None:
        self.parts.append((time.perf_counter(), data))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None) if exc is None else self.closed.set_exception(exc)


def _http(address: Address, body: Mapping[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    lines = [
        f"POST {PATH} HTTP/1.1",
        f"Host: {address.host}:{address.port}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in address.headers),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + content


def _read(started: float, parts: Sequence[_Part], failure: str) -> Sample:
    times: list[float] = []
    texts: list[str] = []
    usage: Mapping[str, Any] = {}
    error, ended = failure, False
    try:
        for arrived, data in _events(parts):
            ended = ended or data == b"[DONE]"
            event = {} if ended else json.loads(data)
            usage = event.get("usage") or usage
            if problem := event.get("error"):
                error = json.dumps(problem)
            for choice in event.get("choices", []):
                if choice.get("text"):
                    times.append(arrived)
                    texts.append(choice["text"])
    except (h11.RemoteProtocolError, ValueError) as problem:
        error = error or str(problem)
    error = error or ("" if ended else "the stream broke off")
    num_tokens = usage.get("completion_tokens", len(texts))
    return Sample(started, tuple(times), "".join(texts), num_tokens, usage.get("prompt_tokens"), error or None)


def _events(parts: Sequence[_Part]) -> Iterator[tuple[float, bytes]]:
    """Data of the server-sent events, each with the time its last byte arrived. Raises ValueError for a refusal."""
    buffer = b""
    for arrived, data in _content(parts):
        *events, buffer = (buffer + data).replace(b"\r\n", b"\n").split(b"\n\n")
        for event in events:
            if event.startswith(b"data:"):
                yield arrived, event.removeprefix(b"data:").strip()


def _content(parts: Sequence[_Part]) -> Iterator[_Part]:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target=PATH, headers=[("Host", "server"), ("Connection", "close")]))
    connection.send(h11.EndOfMessage())
    status = 0
    refusal = b""
    for arrived, data in [*parts, (0.0, b"")]:
        connection.receive_data(data)
        while (event := connection.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data) and status == 200:
                yield arrived, bytes(event.data)
            elif isinstance(event, h11.Data):
                refusal += bytes(event.data)
            elif isinstance(event, h11.ConnectionClosed):
                break
    if status != 200:
        raise ValueError(f"answered {status or 'nothing'}: {refusal.decode(errors='replace')[:300]}")
