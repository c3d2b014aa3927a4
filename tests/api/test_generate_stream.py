"""/generate as it is written: order, errors before and after the first piece, and callers who leave."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from app.engine.fake import FakeEngine
from tests.api.live import Service
from tests.api.test_experts import FickleEngine, LyingEngine

QUESTION: dict[str, Any] = {"instruction": "What is it?", "max_new_tokens": 8, "ignore_eos": True, "temperature": 0.5}

Told = tuple[str, dict[str, Any]]  # event, data


@contextmanager
def asked(service: Service, query: str = "", **changes: object) -> Iterator[tuple[httpx.Response, Iterator[Told]]]:
    """The answer's head, and its events as they come."""
    body = {**QUESTION, "stream": True, **changes}
    with service.http.stream("POST", f"/generate{query}", json=body) as response:
        yield response, events(response)


@contextmanager
def asked_held(service: Service, engine: FakeEngine, *, pieces: int, **changes: object) -> Iterator[Iterator[Told]]:
    """Events of a question that is held; the rest comes, and can be read, once the block has ended."""
    body = {**QUESTION, "stream": True, **changes}
    request = service.http.build_request("POST", "/generate", json=body)
    with engine.hold(after_pieces=pieces):
        yield events(service.http.send(request, stream=True))


def events(response: httpx.Response) -> Iterator[Told]:
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line:
            yield name, json.loads(line.removeprefix("data: "))


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def service(start: Callable[..., Service], engine: FakeEngine) -> Service:
    return start(engine=engine)


def test_pieces_make_the_answer(service: Service) -> None:
    """Head first, then every piece, then the body that the same question gets whole."""
    adapter = service.add_expert()
    with asked(service, "?domain=finance", logprobs=1) as (response, told):
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-selfspec-adapter"] == "finance@v1"
        assert response.headers["x-selfspec-adapter-id"] == adapter.id
        *pieces, (last, body) = told
    assert {name for name, _ in pieces} == {"piece"}
    assert "".join(piece["text"] for _, piece in pieces) == body["text"]
    assert [one for _, piece in pieces for one in piece["logprobs"]] == body["logprobs"]
    whole = service.http.post("/generate?domain=finance", json={**QUESTION, "logprobs": 1}).json()
    assert last == "answer"
    changing = {"timings": None, "usage": None, "index": None}
    assert {**body, **changing} == {**whole, **changing}
    assert body["usage"]["completion_tokens"] == 8


def test_pieces_come_while_the_answer_is_written(service: Service, engine: FakeEngine) -> None:
    with asked_held(service, engine, pieces=2) as told:
        first = [next(told), next(told)]
        assert engine.stats()["requests"] == 0
    assert [name for name, _ in first] == ["piece", "piece"]
    assert [name for name, _ in told] == ["piece"] * 6 + ["answer"]


def test_several_answers_are_told_apart(service: Service) -> None:
    with asked(service, n=3, seed=5) as (_, told):
        everything = list(told)
    bodies = {data["index"]: data["text"] for name, data in everything if name == "answer"}
    assert sorted(bodies) == [0, 1, 2]
    for index, text in bodies.items():
        pieces = [data["text"] for name, data in everything if name == "piece" and data["index"] == index]
        assert "".join(pieces) == text
    whole = service.http.post("/generate", json={**QUESTION, "n": 3, "seed": 5}).json()["answers"]
    assert [answer["text"] for answer in whole] == [bodies[index] for index in (0, 1, 2)]


@pytest.mark.parametrize(
    ("query", "changes", "status", "code"),
    [
        ("?domain=nobody", {}, 404, "domain_not_found"),
        ("", {"input": "word " * 9000}, 422, "invalid_input"),
        ("", {"json_schema": {"type": "mood"}}, 422, "invalid_input"),
        ("", {"timeout_s": 1e-9}, 504, "deadline_exceeded"),
        ("?domain=a&domain=b", {}, 422, "invalid_input"),
    ],
)
def test_what_fails_before_the_first_piece_has_its_status(
    service: Service, query: str, changes: dict[str, object], status: int, code: str
) -> None:
    response = service.http.post(f"/generate{query}", json={**QUESTION, "stream": True, **changes})
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_what_fails_later_is_an_event(service: Service, engine: FakeEngine) -> None:
    with engine.hold(after_pieces=1), asked(service, n=2) as (response, told):
        assert [next(told)[0], next(told)[0]] == ["piece", "piece"]
        engine.close()
        failed = list(told)
    assert response.status_code == 200
    assert [(name, data["error"]["code"]) for name, data in failed] == [("error", "not_ready")] * 2


def test_time_runs_out_while_it_is_written(start: Callable[..., Service]) -> None:
    now = [0.0]
    engine = FakeEngine(clock=lambda: now[0])
    with asked_held(start(engine=engine), engine, pieces=3, timeout_s=5) as told:
        first = [next(told) for _ in range(3)]
        now[0] = 10.0
    [(last, body)] = list(told)
    assert (last, body["finish_reason"]) == ("answer", "timeout")
    assert body["text"] == "".join(piece["text"] for _, piece in first)
    assert body["timings"]["seconds"] == 10.0


def test_a_caller_who_leaves_frees_everything(service: Service, engine: FakeEngine) -> None:
    service.add_expert()
    with engine.hold(after_pieces=1):
        with asked(service, "?domain=finance", n=3) as (_, told):
            assert next(told)[0] == "piece"
        engine.wait_stats(cancelled=3)
        state = engine.state()
    assert (state.running, state.waiting, engine.stats()["requests"]) == (0, 0, 0)


def test_a_caller_who_leaves_before_the_first_piece(service: Service, engine: FakeEngine) -> None:
    service.add_expert()
    body = json.dumps({**QUESTION, "stream": True, "n": 2}).encode()
    host, port = service.url.removeprefix("http://").split(":")
    with engine.hold():
        with socket.create_connection((host, int(port))) as connection:
            head = "POST /generate?domain=finance HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            connection.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            engine.wait_stats(waiting=2)
        engine.wait_stats(cancelled=2)
    assert engine.stats()["requests"] == 0


def test_an_adapter_evicted_meanwhile_is_attached_again(start: Callable[..., Service]) -> None:
    service = start(engine=FickleEngine(times=2))
    adapter = service.add_expert()
    with asked(service, "?domain=finance") as (response, told):
        *_, (_, body) = told
    assert (response.headers["x-selfspec-adapter-id"], body["adapter"]) == (adapter.id, adapter.id)


def test_an_answer_of_the_base_is_never_passed_off(start: Callable[..., Service]) -> None:
    service = start(engine=LyingEngine())
    service.add_expert()
    with asked(service, "?domain=finance") as (_, told):
        assert [(name, data["error"]["code"]) for name, data in told] == [("error", "internal_error")]
