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

pytestmark = pytest.mark.model  # seconds each, with the real engine

Start = Callable[..., TorchEngine]

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
        near = (number // 15 + self.draw.randrange(6)) % (len(self.adapters) + 1)
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
            max_new_tokens=draw.choice((1, 1, 2, 4, 12)),
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


def caller_of(start: Start, adapters: dict[str, Path]) -> Caller:
    size = start().attach("a1", adapters["a1"]).num_bytes
    sizes = {"adapter_bytes": NUM_IN_MEMORY * size, "prefix_bytes": 400_000, "cache_bytes": 20_000_000}
    return Caller(start(num_slots=NUM_SLOTS, **sizes), adapters)


def test_everything_comes_back(start: Start, adapters: dict[str, Path]) -> None:
    before = count_objects()
    caller = caller_of(start, adapters)
    caller.run(range(300))
    counts = caller.engine.stats()
    assert caller.num_answers > 150
    assert all(counts[name] for name in ("cancelled", "evictions", "host_evictions", "cached_tokens"))
    assert counts["failed"] == 0
    let_go(caller.engine)
    assert leftovers(caller.engine) == {}
    assert count_objects() - before == {}


@pytest.mark.model
def test_memory_is_flat_over_ten_thousand_requests(start: Start, adapters: dict[str, Path]) -> None:
    """A bug: the processor's library kept a compiled product for every number of rows it had ever met."""
    before = count_objects()
    caller = caller_of(start, adapters)
    caller.run(range(2_000))
    warm = resident()
    caller.run(range(2_000, 10_000))
    grown = resident() - warm
    print(f"{warm / 2**20:.0f} MiB after 2,000, {grown / 2**20:+.1f} after 10,000; {dict(caller.engine.stats())}")
    assert grown < MOST_GROWTH
    assert caller.engine.stats()["failed"] == 0
    let_go(caller.engine)
    assert leftovers(caller.engine) == {}
    assert count_objects() - before == {}
