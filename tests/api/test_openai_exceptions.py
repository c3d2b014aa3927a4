"""Every refusal of /v1 reaches a caller of the ``openai`` client as the exception class it has for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import openai
import pytest

from app.engine.fake import FakeEngine
from app.models import Adapter
from tests.api.live import Service, serve
from tests.api.openai_house import MESSAGES, client_of


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service with finance@v1 for all tests that leave finance alone."""
    with serve(tmp_path_factory.mktemp("openai") / "var") as running:
        yield running


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[openai.OpenAI]:
    with client_of(service) as opened:
        yield opened


@pytest.fixture(scope="module")
def expert(service: Service) -> Adapter:
    return service.add_expert()


@pytest.mark.parametrize("model", ["law", "finance@v9", "Finance", "gpt-4", "0123456789abcdef", "", "a/b"])
def test_unknown_models_are_never_answered_by_the_base(client: openai.OpenAI, expert: Adapter, model: str) -> None:
    kind = openai.UnprocessableEntityError if model == "" else openai.NotFoundError
    for ask in (
        lambda: client.chat.completions.create(model=model, messages=MESSAGES),
        lambda: client.chat.completions.create(model=model, messages=MESSAGES, stream=True),
        lambda: client.completions.create(model=model, prompt="Hello"),
    ):
        with pytest.raises(kind) as refusal:
            ask()
        assert refusal.value.param == "model"
        assert model == "" or (refusal.value.code, refusal.value.type) == ("model_not_found", "not_found_error")


def test_while_the_base_loads(start: Callable[..., Service]) -> None:
    service = start(engine=FakeEngine(loaded=False))
    with client_of(service) as client, pytest.raises(openai.InternalServerError) as refusal:
        client.chat.completions.create(model="finance", messages=MESSAGES)
    assert (refusal.value.status_code, refusal.value.code) == (503, "not_ready")
    assert int(refusal.value.response.headers["retry-after"]) > 0


def test_too_many_waiting(start: Callable[..., Service]) -> None:
    engine = FakeEngine(max_batch=1, max_waiting=0)
    service = start(engine=engine)
    with client_of(service) as client, engine.hold(), pytest.raises(openai.RateLimitError) as refusal:
        client.chat.completions.create(model="fake-base", messages=MESSAGES)
    assert (refusal.value.code, refusal.value.type) == ("overloaded", "rate_limit_error")


def test_an_adapter_of_another_base(service: Service, client: openai.OpenAI) -> None:
    service.add_expert("medicine", base="other-base")
    with pytest.raises(openai.ConflictError) as refusal:
        client.chat.completions.create(model="medicine", messages=MESSAGES)
    assert (refusal.value.code, refusal.value.param) == ("adapter_refused", "model")


def test_requests_that_cannot_be_answered(client: openai.OpenAI, expert: Adapter) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refusal:
        client.chat.completions.create(model="finance", messages=MESSAGES, frequency_penalty=0.5)
    assert (refusal.value.param, refusal.value.type) == ("frequency_penalty", "invalid_request_error")


def test_operators_only(start: Callable[..., Service], client: openai.OpenAI) -> None:
    """401 for the wrong key, 403 where no key would help."""
    body = {"lora_name": "press", "lora_path": "/srv/press"}
    with pytest.raises(openai.PermissionDeniedError, match="SELFSPEC_ADMIN_KEY"):
        client.post("/load_lora_adapter", body=body, cast_to=str)
    with client_of(start(admin_key="correct-horse")) as other, pytest.raises(openai.AuthenticationError):
        other.post("/load_lora_adapter", body=body, cast_to=str)
