"""What /v1 refuses and passes over, in OpenAI's error shape; and what load testers send to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from app.engine.fake import FakeEngine
from tests.api.live import Service, serve

CHAT: dict[str, Any] = {"model": "finance", "messages": [{"role": "user", "content": "Good or bad?\n\nProfit"}]}
COMPLETION: dict[str, Any] = {"model": "finance", "prompt": "Good or bad?"}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serve(tmp_path_factory.mktemp("openai") / "var") as running:
        running.add_expert()
        yield running


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """OpenAI's error object, and nothing beside it."""
    assert response.status_code == status, response.text
    assert response.json().keys() == {"error"}
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"]
    return dict(error)


def chat(service: Service, **changes: Any) -> httpx.Response:
    return service.http.post("/v1/chat/completions", json={**CHAT, **changes})


def complete(service: Service, **changes: Any) -> httpx.Response:
    return service.http.post("/v1/completions", json={**COMPLETION, **changes})


def user(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


def events(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]


@pytest.mark.parametrize(
    ("changes", "param", "reason"),
    [
        ({"temprature": 0.3}, "temprature", "did you mean temperature?"),
        ({"max_token": 3}, "max_token", "did you mean max_tokens?"),
        ({"zzz": 3}, "zzz", "unknown field"),
        ({"tools": [{"type": "function"}]}, "tools", "not supported: leave it out or send []"),
        ({"functions": [{"name": "f"}]}, "functions", "not supported"),
        ({"tool_choice": "required"}, "tool_choice", 'send "none" or "auto"'),
        ({"logit_bias": {"50256": -100}}, "logit_bias", "not supported"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "send 0"),
        ({"presence_penalty": 1}, "presence_penalty", "send 0"),
        ({"repetition_penalty": 1.1}, "repetition_penalty", "send 1"),
        ({"top_k": 5}, "top_k", "not supported"),
        ({"continue_final_message": True}, "continue_final_message", "send false"),
        ({"modalities": ["text", "audio"]}, "modalities", "not supported"),
        ({"stream_options": {"include_useage": True}}, "stream_options.include_useage", "did you mean include_usage?"),
        ({"temperature": 2.1}, "temperature", "less than or equal to 2"),
        ({"temperature": "hot"}, "temperature", "number"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"stop": [""]}, "stop.0", "at least 1 character"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "greater than or equal to 1"),
        ({"max_tokens": 9000}, "max_tokens", "do not fit the base"),
        ({"top_logprobs": 3}, "top_logprobs", "needs logprobs: true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "json_schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "goes with type json_schema"),
        ({"model": None}, "model", "is missing"),
        ({"messages": None}, "messages", "is missing"),
        ({"messages": []}, "messages", "at least 1"),
        (user(None), "messages.0.content", "is missing"),
        (user(" "), "messages.0.content", "is empty"),
        (
            user([{"type": "text", "text": "What is this?"}, IMAGE]),
            "messages.0.content",
            "part 1 is of type 'image_url'",
        ),
        ({"messages": [{"role": "tool", "content": "4"}]}, "messages.0.role", "experts call no tools"),
        ({"messages": [{"role": "critic", "content": "4"}]}, "messages.0.role", "'user'"),
        ({"messages": [{"role": "user", "content": "a", "image": 1}]}, "messages.0.image", "unknown field"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "messages.0", "it must be the user's"),
        (
            {"messages": [{"role": "assistant", "content": "a", "tool_calls": [{}]}, *CHAT["messages"]]},
            "messages.0.tool_calls",
            "not supported",
        ),
    ],
)
def test_chats_that_cannot_be_answered(service: Service, changes: dict[str, Any], param: str, reason: str) -> None:
    error = error_of(chat(service, **changes), 422)
    assert (error["param"], error["code"], error["type"]) == (param, "invalid_input", "invalid_request_error")
    assert reason in error["message"]


@pytest.mark.parametrize(
    ("changes", "param", "reason"),
    [
        ({"prompt": [1, 2, 3]}, "prompt", "token ids are not read"),
        ({"prompt": [[1, 2], [3]]}, "prompt", "token ids are not read"),
        ({"prompt": ["a", " "]}, "prompt", "prompt 1 is empty"),
        ({"prompt": []}, "prompt", "at least 1"),
        ({"prompt": ["a", "b"], "stream": True}, "stream", "takes one prompt"),
        ({"echo": True}, "echo", "not supported"),
        ({"suffix": "end"}, "suffix", "not supported"),
        ({"best_of": 4}, "best_of", "send 1"),
        ({"logprobs": True, "temprature": 1}, "temprature", "did you mean temperature?"),
        ({"prompt": "word " * 9000}, "prompt", "do not fit the base"),
        ({"prompt": "word " * 9000, "raw": True}, "prompt", "do not fit the base"),
    ],
)
def test_prompts_that_cannot_be_answered(service: Service, changes: dict[str, Any], param: str, reason: str) -> None:
    error = error_of(complete(service, **changes), 422)
    assert error["param"] == param
    assert reason in error["message"]


def test_all_faults_are_in_the_message(service: Service) -> None:
    error = error_of(chat(service, temperature=3, top_p=2), 422)
    assert "temperature" in error["message"] and "top_p" in error["message"]


def test_what_changes_nothing_is_passed_over(service: Service) -> None:
    """Clients and frameworks send these unasked."""
    neutral = {
        "user": "ann",
        "store": True,
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "parallel_tool_calls": True,
        "frequency_penalty": 0.0,
        "presence_penalty": 0,
        "logit_bias": {},
        "tools": [],
        "tool_choice": "none",
        "stop": None,
        "seed": None,
        "max_tokens": None,
        "response_format": {"type": "text"},
        "stream_options": None,
        "temperature": 0,
    }
    plain, same = chat(service, temperature=0).json(), chat(service, **neutral).json()
    assert same["choices"] == plain["choices"]


def test_what_vllm_bench_serve_sends(service: Service) -> None:
    """Its request of either kind, and what it reads from the stream: texts, then the usage in a chunk of its own."""
    common = {
        "model": "finance@v1",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "ignore_eos": True,
    }
    completion = {**common, "prompt": "a b c", "repetition_penalty": 1.0, "max_tokens": 24, "logprobs": None}
    chat = {**common, "messages": user([{"type": "text", "text": "a b c"}])["messages"], "max_completion_tokens": 24}
    for path, body in (("/v1/completions", completion), ("/v1/chat/completions", chat)):
        *chunks, usage, done = events(service.http.post(path, json=body))
        choices = [choice for chunk in chunks for choice in json.loads(chunk)["choices"]]
        assert "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)
        assert json.loads(usage)["choices"] == []
        assert json.loads(usage)["usage"]["completion_tokens"] == 24
        assert done == "[DONE]"


def test_time_that_runs_out(start: Callable[..., Service]) -> None:
    """OpenAI has no word for it: the answer was cut short, and an extra field says why."""
    now = [0.0]
    engine = FakeEngine(clock=lambda: now[0])
    service = start(engine=engine)
    with engine.hold(after_pieces=1):
        body = {**CHAT, "model": "fake-base", "timeout_s": 5, "stream": True}
        with service.http.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()
            assert "assistant" in next(lines)
            now[0] = 6.0
            with engine.hold(after_pieces=1):
                pass
            rest = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert rest[-1]["choices"][0]["finish_reason"] == "length"
    assert rest[-1]["choices"][0]["timed_out"] is True


def test_a_failure_under_way_ends_the_stream(start: Callable[..., Service]) -> None:
    engine = FakeEngine()
    service = start(engine=engine)
    with engine.hold(after_pieces=1):
        body = {**CHAT, "model": "fake-base", "stream": True}
        with service.http.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()
            assert "assistant" in next(lines)
            engine.close()
            rest = [line for line in lines if line]
    error = json.loads(rest[-1].removeprefix("data: "))["error"]
    assert (error["code"], error["type"]) == ("not_ready", "server_error")


@pytest.mark.parametrize("body", ["{", "[" * 100_000, "null", "[]", '{"model": "\ud83d"}'])
def test_bodies_that_cannot_be_parsed(service: Service, body: str) -> None:
    content = body.encode("utf-8", "surrogatepass")
    response = service.http.post("/v1/completions", content=content, headers={"content-type": "application/json"})
    error_of(response, response.status_code)
    assert response.status_code in (400, 422)


def test_framework_refusals_have_the_same_shape(service: Service) -> None:
    assert error_of(service.http.get("/v1/nowhere"), 404)["type"] == "not_found_error"
    assert error_of(service.http.get("/v1/completions"), 405)["code"] == "method_not_allowed"
    assert error_of(service.http.get("/v1/models/a%00b"), 422)["param"] == "url"


def test_body_too_large(start: Callable[..., Service]) -> None:
    service = start(max_upload_bytes=2000)
    assert error_of(complete(service, prompt="x" * 2000), 413)["code"] == "too_large"
