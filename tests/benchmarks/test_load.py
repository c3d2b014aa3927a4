"""The load client: what it counts, what it calls a failure, and how many requests it sends at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from benchmarks.serving.load import Address, drive
from benchmarks.serving.measure import Processors, failure, summarize
from benchmarks.serving.target import HttpTarget
from benchmarks.serving.workload import Point, Request, Sizes, Words, make_workload

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextmanager
def server(handler: Handler) -> Iterator[Address]:
    """A server that does what ``handler`` does with each connection."""
    loop = asyncio.new_event_loop()
    listening = loop.run_until_complete(asyncio.start_server(handler, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield Address(*listening.sockets[0].getsockname()[:2])
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        listening.close()
        loop.run_until_complete(listening.wait_closed())
        loop.close()


async def read_request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    await reader.readexactly(length)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_the_service_is_asked_and_its_tokens_are_counted(target: HttpTarget, words: Words) -> None:
    point = Point("mixed", 4)
    workload = make_workload(point, words=words, sizes=Sizes(requests=6, prompt_tokens=9, new_tokens=7), seed="s")
    samples = target.ask(workload.requests, concurrency=point.concurrency)
    assert [failure(sample, 7) for sample in samples] == [None] * 6
    assert {sample.prompt_tokens for sample in samples} == {9}
    assert all(list(sample.times) == sorted(sample.times) and sample.times[0] > sample.started for sample in samples)
    found = summarize(workload, samples, target="t", dtype="d", processors=Processors(1.0, 0.1, 2.0))
    assert (found.failures, found.prompt_tokens) == (0, 9.0)
    assert found.tokens_per_second * found.seconds == pytest.approx(42)
    assert found.cpu_ms_per_token == pytest.approx(1000 / 42)


def test_each_model_answers_for_itself(target: HttpTarget) -> None:
    requests = [Request(name, "What is it?", 8) for name in ("base", "d0", "d1")]
    texts = [sample.text for sample in target.ask(requests, concurrency=3)]
    assert len(set(texts)) == 3


def test_a_refusal_is_a_failure_that_says_why(target: HttpTarget) -> None:
    (sample,) = target.ask([Request("nobody", "What is it?", 8)], concurrency=1)
    assert sample.error is not None
    assert "404" in sample.error
    assert "nobody" in sample.error


def test_a_stream_that_breaks_off_is_a_failure() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(HEAD + chunk(b'data: {"choices": [{"text": "one"}]}\n\n'))
        writer.close()

    with server(handler) as address:
        (sample,) = drive(address, [{}], concurrency=1)
    assert sample.text == "one"
    assert sample.error is not None


def test_a_server_that_is_gone_is_a_failure() -> None:
    with server(read_nothing) as address:
        pass
    (sample,) = drive(address, [{}], concurrency=1)
    assert "ConnectionRefusedError" in str(sample.error)


async def read_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def test_an_event_counts_when_its_end_arrives_however_it_is_cut() -> None:
    """Chunks are the server's business: one event may come in two of them, and two events in one."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        events = b'data: {"choices": [{"text": "one"}]}\n\ndata: {"choices": [{"text": " two"}]}\n\n'
        usage = b'data: {"choices": [], "usage": {"completion_tokens": 5, "prompt_tokens": 3}}\n\ndata: [DONE]\n\n'
        for part in (events[:10], events[10:50], events[50:] + usage):
            writer.write((HEAD if part == events[:10] else b"") + chunk(part))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        writer.close()

    with server(handler) as address:
        (sample,) = drive(address, [{}], concurrency=1)
    assert (sample.text, sample.error) == ("one two", None)
    assert (sample.num_tokens, sample.prompt_tokens, len(sample.times)) == (5, 3, 2)


def test_no_more_requests_are_under_way_than_asked_for_and_no_fewer() -> None:
    """Each answer is held back until three requests are there, so fewer at once would never end."""
    under_way, most = 0, 0
    everyone = asyncio.Barrier(3)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal under_way, most
        await read_request(reader)
        under_way += 1
        most = max(most, under_way)
        await everyone.wait()
        under_way -= 1
        writer.write(HEAD + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        writer.close()

    with server(handler) as address:
        samples = drive(address, [{}] * 9, concurrency=3)
    assert [sample.error for sample in samples] == [None] * 9
    assert most == 3
