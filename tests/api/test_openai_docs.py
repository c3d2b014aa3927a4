"""The worked examples of /v1: what they show fits the schemas, and can be sent as it stands."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from app.api import openai_examples as examples
from app.api import tuning_examples
from app.api.schemas.openai import ChatRequest, CompletionRequest
from app.api.schemas.openai_answers import ChatBody, CompletionBody, ModelBody, ModelList
from app.api.schemas.openai_files import FileBody, FileDeletedBody, FileList
from app.api.schemas.openai_tuning import (
    CheckpointBody,
    CheckpointList,
    TuningBody,
    TuningEventBody,
    TuningEventList,
    TuningList,
    TuningRequest,
)
from app.api.schemas.vllm_adapters import LoadRequest, UnloadRequest
from tests.api.live import Service

REQUESTS: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (ChatRequest, examples.CHAT),
    (ChatRequest, examples.BASE_CHAT),
    (CompletionRequest, examples.COMPLETION),
    (TuningRequest, tuning_examples.ORDER),
    (LoadRequest, examples.LOAD),
    (UnloadRequest, examples.UNLOAD),
]
ANSWERS: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (ChatBody, examples.CHAT_ANSWER),
    (CompletionBody, examples.COMPLETION_ANSWER),
    (ModelBody, examples.MODEL),
    (ModelList, examples.MODELS),
    (FileBody, tuning_examples.FILE),
    (FileList, tuning_examples.FILES),
    (FileDeletedBody, tuning_examples.DELETED),
    (TuningBody, tuning_examples.TUNING),
    (TuningBody, tuning_examples.QUEUED_TUNING),
    (TuningBody, tuning_examples.PAUSING_TUNING),
    (TuningBody, tuning_examples.CANCELLED_TUNING),
    (TuningList, tuning_examples.TUNINGS),
    (TuningEventBody, tuning_examples.EVENT),
    (TuningEventList, tuning_examples.EVENTS),
    (CheckpointBody, tuning_examples.CHECKPOINT),
    (CheckpointList, tuning_examples.CHECKPOINTS),
]


def test_requests_are_understood() -> None:
    for model, example in REQUESTS:
        model.model_validate(example)


@pytest.mark.parametrize(("model", "example"), ANSWERS)
def test_answers_fit_their_schemas(model: type[BaseModel], example: dict[str, Any]) -> None:
    assert model.model_validate(example).model_dump(mode="json", exclude_unset=True) == example


def shape(value: Any) -> Any:
    """A value's keys, all the way down; lists by their first item."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value else type(value)


def test_examples_look_like_what_is_sent(service: Service) -> None:
    service.add_expert()
    for path, body, answer in (
        ("/v1/chat/completions", examples.CHAT, examples.CHAT_ANSWER),
        ("/v1/completions", examples.COMPLETION, examples.COMPLETION_ANSWER),
    ):
        assert shape(service.http.post(path, json=body).json()) == shape(answer)
    assert shape(service.http.get("/v1/models/finance").json()) == shape(examples.MODEL)


def test_the_order_of_the_examples_can_be_sent(service: Service) -> None:
    """Upload and order as Swagger fills them in, on this service's base."""
    form = {"purpose": tuning_examples.FORM["purpose"]}
    data = tuning_examples.FORM["file"].encode()
    file = service.http.post("/v1/files", data=form, files={"file": ("finance.jsonl", data)}).json()
    assert shape(file) == shape(tuning_examples.FILE)
    order = {**tuning_examples.ORDER, "model": "fake-base", "training_file": file["id"]}
    sent, shown = service.http.post("/v1/fine_tuning/jobs", json=order).json(), dict(tuning_examples.TUNING)
    assert sent.pop("selfspec")["status"] == "queued"
    del shown["selfspec"]
    assert shape(sent) == shape(shown)


def test_streams_look_like_what_is_sent(service: Service) -> None:
    """First and last chunk; how many there are between depends on the answer."""
    service.add_expert()
    for path, body, example in (
        ("/v1/chat/completions", examples.CHAT, examples.CHAT_STREAM),
        ("/v1/completions", examples.COMPLETION, examples.COMPLETION_STREAM),
    ):
        streamed = service.http.post(path, json={**body, "stream": True}).text
        sent, shown = chunks(streamed), chunks(example)
        assert [shape(sent[0]), shape(sent[-1])] == [shape(shown[0]), shape(shown[-1])]


def chunks(stream: str) -> list[Any]:
    *lines, done = [line.removeprefix("data: ") for line in stream.split("\n\n") if line]
    assert done == "[DONE]"
    return [json.loads(line) for line in lines]
