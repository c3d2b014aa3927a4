"""Adapters that are let go while others still ask for them, or want them back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.records import GenerationRequest
from app.engine.engine import TorchEngine
from tests.limits.house import SECONDS, leftovers, let_go

pytestmark = pytest.mark.model  # with the real engine

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


def test_an_adapter_stays_for_a_request_that_is_about_to_stand_in_line(
    start: Callable[..., TorchEngine], adapters: dict[str, Path]
) -> None:
    """A bug: let go in that moment, its request failed on an assertion when its turn came."""
    engine = start()
    engine.attach("a1", adapters["a1"])
    assert engine._host.hold("a1")  # as a caller's thread does before it tells the owner thread
    engine.detach("a1")
    let_go(engine)
    assert engine.state().host_bytes
    engine._host.release("a1")
    let_go(engine)
    assert leftovers(engine) == {}
