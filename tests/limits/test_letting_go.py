"""Adapters that are let go while others still ask for them, or want them back."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from app.core.errors import NotFound
from app.core.records import GenerationRequest
from app.engine.engine import TorchEngine
from tests.limits.house import SECONDS, leftovers, let_go

QUESTION = GenerationRequest("the firm", adapter="a1", max_new_tokens=3, ignore_end=True)


def test_an_adapter_that_is_wanted_again_at_once_is_there(
    start: Callable[..., TorchEngine], adapters: dict[str, Path]
) -> None:
    """A bug: it was let go after it had been attached again."""
    engine = start()
    for _ in range(50):
        engine.attach("a1", adapters["a1"])
        assert engine.submit(QUESTION).result(SECONDS).adapter == "a1"
        engine.detach("a1")
    let_go(engine)
    assert leftovers(engine) == {}


def test_a_request_gets_its_expert_or_is_told_that_it_is_gone(
    start: Callable[..., TorchEngine], adapters: dict[str, Path]
) -> None:
    """A bug: a request accepted just before its adapter was let go failed on an assertion when its turn came."""
    engine, outcomes, is_over = start(), Counter[str](), threading.Event()

    def come_and_go() -> None:
        while not is_over.is_set():
            engine.attach("a1", adapters["a1"])
            engine.detach("a1")

    coming = threading.Thread(target=come_and_go)
    coming.start()
    try:
        while min(outcomes["answered"], outcomes["gone"]) < 100:
            future = engine.submit(QUESTION)
            try:
                assert future.result(SECONDS).adapter == "a1"
                outcomes["answered"] += 1
            except NotFound:
                outcomes["gone"] += 1
    finally:
        is_over.set()
        coming.join()
    let_go(engine)
    assert leftovers(engine) == {}
