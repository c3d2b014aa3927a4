"""Thousands of requests while adapters come, lose their places and go: memory stays flat and everything comes back."""

from __future__ import annotations

import gc
import random
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from app.core.errors import NotReady
from app.core.records import Completion, GenerationRequest
from app.engine.engine import TorchEngine
from tests.limits.house import SECONDS, count_objects, leftovers, let_go

NUM_SLOTS, NUM_IN_MEMORY, IN_FLIGHT = 4, 8, 24
BEGINNINGS = ("", "the revenue of the third quarter rose and the margin ", "question answer instruction response ")
WORDS = ("the firm", "the board raised", "negative", "its guidance", "neutral input")
MOST_GROWTH = 20 * 2**20  # bytes, of a process that has warmed up


@dataclass
class Caller:
    """Asks one request after the other, a few at a time, and reads or leaves each."""

    engine: TorchEngine
    adapters: dict[str, Path]
    draw: random.Random = field(default_factory=lambda: random.Random(7))
    asked: deque[tuple[Future[Completion], str | None, list[str]]] = field(default_factory=deque)
    num_answers: int = 0

    def run(self, numbers: range) -> None:
        for number in numbers:
            if number % 40 == 0:
                self.engine.detach(self.draw.choice(list(self.adapters)))
            self.ask(number)
            while len(self.asked) > IN_FLIGHT:
                self.read()
        while self.asked:
            self.read()

    def ask(self, number: int) -> None:
        near = (number // 60 + self.draw.randrange(6)) % (len(self.adapters) + 1)
        adapter = [None, *self.adapters][near]
        while adapter is not None:
            try:
                self.engine.attach(adapter, self.adapters[adapter])
                break
            except NotReady:  # all that is in memory is in use
                self.read()
        told: list[str] = []
        is_streamed = self.draw.random() < 0.5
        request = self.request(adapter)
        future = self.engine.submit(request, on_piece=(lambda piece: told.append(piece.text)) if is_streamed else None)
        self.asked.append((future, adapter, told))
        if self.draw.random() < 0.2:
            self.draw.choice(self.asked)[0].cancel()

    def request(self, adapter: str | None) -> GenerationRequest:
        draw = self.draw
        prompt = draw.choice(BEGINNINGS) + " ".join(draw.choices(WORDS, k=draw.randrange(1, 9)))
        return GenerationRequest(
            prompt,
            adapter=adapter,
            max_new_tokens=draw.choice((1, 2, 4, 8, 24)),
            temperature=draw.choice((0.0, 0.9)),
            seed=draw.randrange(100),
            stop=draw.choice(((), ("e",), ("no such text", "ing"))),
            logprobs=draw.choice((None, None, 2)),
        )

    def read(self) -> None:
        future, adapter, told = self.asked.popleft()
        if future.cancelled():
            return
        answer = future.result(SECONDS)
        assert answer.adapter == adapter
        assert not told or "".join(told) == answer.text
        self.num_answers += 1


def resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


@pytest.mark.parametrize("num_requests", [1000, pytest.param(10_000, marks=pytest.mark.model)])
def test_memory_stays_flat(start: Callable[..., TorchEngine], adapters: dict[str, Path], num_requests: int) -> None:
    """A bug: an adapter that was let go and attached again at once was let go all the same."""
    before = count_objects()
    size = start().attach("a1", adapters["a1"]).num_bytes
    engine = start(num_slots=NUM_SLOTS, adapter_bytes=NUM_IN_MEMORY * size, prefix_bytes=400_000, cache_bytes=20_000_000)
    caller = Caller(engine, adapters)
    caller.run(range(num_requests // 5))
    warm = resident()
    caller.run(range(num_requests // 5, num_requests))
    grown = resident() - warm
    print(f"{num_requests} requests: {grown / 2**20:+.1f} MiB; {dict(engine.stats())}")
    assert grown < MOST_GROWTH
    assert caller.num_answers > num_requests / 2
    counts = engine.stats()
    assert min(counts[name] for name in ("cancelled", "evictions", "host_evictions", "cached_tokens")) > 10
    assert counts["failed"] == 0
    let_go(engine)
    assert leftovers(engine) == {}
    assert count_objects() - before == {}
