"""GET /engine: who is in memory, who runs, who waits, under the names people know."""

from __future__ import annotations

import threading
from collections.abc import Callable

from app.api.routes.engine import ENGINE
from app.api.schemas.engine import EngineBody
from app.engine.fake import FakeEngine
from tests.api.live import Service

QUESTION = {"instruction": "What is it?", "max_new_tokens": 12}


def test_the_engine_is_shown_by_expert(start: Callable[..., Service]) -> None:
    engine = FakeEngine(slots=3)
    service = start(engine=engine)
    adapter = service.add_expert()
    service.http.post("/generate?domain=finance", json=QUESTION)
    with engine.hold(after_pieces=1):
        asking = threading.Thread(
            target=service.http.post, args=("/generate?domain=finance",), kwargs={"json": QUESTION}
        )
        asking.start()
        running = 0
        while not running:  # until the request has reached the engine
            shown = service.http.get("/engine").json()
            running = shown["batch"]["running"]
    asking.join()
    assert shown["slots"] == {"total": 3, "used": 1, "bytes_each": shown["slots"]["bytes_each"]}
    first, second = shown["experts"]
    assert (first["name"], first["adapter"], first["running"]) == ("finance@v1", adapter.id, 1)
    assert (second["name"], second["adapter"], second["running"]) == ("base", None, 0)
    assert shown["base"]["name"] == "fake-base"
    assert shown["counters"]["requests"] == 1


def test_the_example_is_true() -> None:
    assert EngineBody.model_validate(ENGINE).model_dump(mode="json") == ENGINE
