"""A process that starts gets its experts back, and nothing that is broken keeps it from being ready."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.records import Attachment
from app.engine.fake import FakeEngine
from app.services.warmup import ATTACH_SECONDS, WarmUp
from tests.api.live import Service


def begin(service: Service, engine: FakeEngine, *, seconds: Callable[[], float] = lambda: 0.0) -> WarmUp:
    """A warm-up under way, of a process that has this engine and the service's stores."""
    warm_up = WarmUp(engine, service.resources.database, service.resources.artifacts, seconds=seconds)
    warm_up.start()
    return warm_up


def test_champions_are_attached_again_the_newest_first(service: Service) -> None:
    for number, domain in enumerate(["law", "finance", "sports"]):
        service.add_expert(domain, weights=bytes([number]) * 32)
    champion = service.add_expert("law", weights=b"\7" * 32)
    engine = FakeEngine(slots=2)
    warm_up = begin(service, engine)
    report = warm_up.wait()
    assert report.attached == ("law@v2", "sports@v1")
    assert champion.id in {proof.adapter for proof in engine.attachments()}
    assert warm_up.check().ok
    assert "experts attached: 2" in warm_up.check().detail


def test_an_expert_that_cannot_be_attached_is_told_and_left(service: Service) -> None:
    broken, whole = service.add_expert("law", weights=b"\1" * 32), service.add_expert("finance", weights=b"\2" * 32)
    service.add_expert("sports", base="other-base", weights=b"\3" * 32)
    folder = service.resources.artifacts.open(broken.artifact_digest, kind="adapter").folder
    (folder / "manifest.json").unlink()
    engine = FakeEngine()
    warm_up = begin(service, engine)
    report = warm_up.wait()
    assert [proof.adapter for proof in engine.attachments()] == [whole.id]
    assert [expert.name for expert in report.not_attached] == ["sports@v1", "law@v1"]
    assert "other-base" in report.not_attached[0].reason
    assert warm_up.check().ok
    assert "law@v1" in warm_up.check().detail


def test_the_end_may_come_while_the_base_loads(service: Service) -> None:
    warm_up = begin(service, FakeEngine(loaded=False))
    assert (warm_up.check().ok, warm_up.check().detail) == (False, "the base is loading")
    warm_up.stop()
    assert warm_up.wait().load_seconds is None


def test_the_base_must_answer_before_the_process_is_ready(service: Service) -> None:
    engine = FakeEngine()
    with engine.hold():
        warm_up = begin(service, engine)
        engine.wait_stats(waiting=1)
        assert (warm_up.check().ok, warm_up.check().detail) == (False, "the base is warming up")
    assert warm_up.wait().first_token_seconds is not None
    assert warm_up.check().ok


def test_a_base_that_cannot_answer_is_not_ready(service: Service) -> None:
    warm_up = begin(service, FakeEngine(context_tokens=3))
    assert warm_up.wait().failure is not None
    assert not warm_up.check().ok
    assert "the warm-up failed" in warm_up.check().detail


class StuckEngine(FakeEngine):
    """Attaches nothing until it is let go, as from a disk that does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.let_go = threading.Event(), threading.Event()

    def attach(self, adapter: str, folder: Path, *, pin: bool = False) -> Attachment:
        self.asked.set()
        assert self.let_go.wait(30)
        return super().attach(adapter, folder, pin=pin)


def test_attaching_that_takes_too_long_is_not_waited_for(service: Service) -> None:
    service.add_expert()
    engine, now = StuckEngine(), [0.0]
    warm_up = begin(service, engine, seconds=lambda: now[0])
    assert engine.asked.wait(30)
    assert not warm_up.check().ok
    now[0] = ATTACH_SECONDS + 1
    assert warm_up.check().ok
    engine.let_go.set()
    assert warm_up.wait().attached == ("finance@v1",)


@pytest.mark.parametrize("warm_up", [True, False])
def test_whether_a_process_warms_up_is_a_setting(start: Callable[..., Service], warm_up: bool) -> None:
    service = start(warm_up=warm_up)
    assert ("warm_up" in service.http.get("/ready").json()["checks"]) is warm_up
    assert (service.http.get("/engine").json()["warm_up"] is not None) is warm_up
