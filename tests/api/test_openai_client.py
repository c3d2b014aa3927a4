"""The unmodified ``openai`` client against a whole service: what it sends is understood, what it gets is typed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from app.core.records import GenerationRequest
from app.engine.fake import FakeEngine
from app.models import Adapter
from app.pipeline.template import ALPACA
from tests.api.live import Service, serve
from tests.api.openai_house import MESSAGES, client_of

PROMPT = ALPACA.render("Good or bad?", "Profit of firm 3")


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


def answer_to(service: Service, prompt: str, adapter: str | None, **drawing: Any) -> str:
    """What the engine says to exactly this prompt."""
    request = GenerationRequest(prompt, adapter, **drawing)
    return service.resources.engine.generate([request])[0].text


def test_models(start: Callable[..., Service]) -> None:
    service = start()
    service.specialize(domain="empty")  # has no expert yet: cannot be asked
    expert, newest = service.add_expert(), service.add_expert(weights=b"\2" * 32)
    service.add_expert("law", base="other-base")  # cannot be asked either
    with client_of(service) as client:
        check_models(client, expert, newest)


def check_models(client: openai.OpenAI, expert: Adapter, newest: Adapter) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert list(listed) == ["fake-base", "finance", "finance@v2", "finance@v1"]
    assert {model.object for model in listed.values()} == {"model"}
    told = {name: (model.to_dict()["root"], model.to_dict()["parent"]) for name, model in listed.items()}
    assert told == {
        "fake-base": ("fake-base", None),
        "finance": ("finance@v2", "fake-base"),
        "finance@v2": (newest.id, "fake-base"),
        "finance@v1": (expert.id, "fake-base"),
    }
    assert client.models.retrieve("finance") == listed["finance"]
    assert client.models.retrieve(expert.id) == listed["finance@v1"]
    assert listed["finance@v1"].created == int(expert.created_at.timestamp())
    with pytest.raises(openai.NotFoundError) as refusal:
        client.models.retrieve("law")
    assert (refusal.value.code, refusal.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("name", ["finance", "finance@v1", "by id", "fake-base"])
def test_chat_is_asked_as_the_expert_was_trained(
    service: Service, client: openai.OpenAI, expert: Adapter, name: str
) -> None:
    """Instruction and input come out of one message; the answer says which version gave it."""
    raw = client.chat.completions.with_raw_response.create(
        model=expert.id if name == "by id" else name, messages=MESSAGES, temperature=0
    )
    answer = raw.parse()
    adapter = None if name == "fake-base" else expert.id
    assert raw.headers["x-selfspec-adapter"] == ("finance@v1" if adapter else "none")
    assert raw.headers["x-selfspec-adapter-id"] == (adapter or "none")
    assert answer.model == ("finance@v1" if adapter else "fake-base")
    [choice] = answer.choices
    assert (choice.message.role, choice.finish_reason, choice.logprobs) == ("assistant", "stop", None)
    assert choice.message.content == answer_to(service, PROMPT, adapter, max_new_tokens=64)
    assert answer.object == "chat.completion"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == service.resources.engine.count(PROMPT)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_conversation_and_content_parts(service: Service, client: openai.OpenAI, expert: Adapter) -> None:
    """What the client got back can be sent again as it is."""
    first = client.chat.completions.create(model="finance", messages=MESSAGES, temperature=0).choices[0].message
    again: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        *MESSAGES,
        first.model_dump(),
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "Why?"}]},
    ]
    answer = client.chat.completions.create(model="finance", messages=again, temperature=0)
    transcript = f"User: Good or bad?\n\nProfit of firm 3\n\nAssistant: {first.content}"
    prompt = ALPACA.render("Be brief.\n\nWhy?", transcript)
    assert answer.choices[0].message.content == answer_to(service, prompt, expert.id)


def test_an_input_of_its_own(service: Service, client: openai.OpenAI, expert: Adapter) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Good or bad?\n\nOne word."}]
    answer = client.chat.completions.create(
        model="finance", messages=messages, temperature=0, extra_body={"input": "Profit"}
    )
    prompt = ALPACA.render("Good or bad?\n\nOne word.", "Profit")
    assert answer.choices[0].message.content == answer_to(service, prompt, expert.id)


def test_sampling(service: Service, client: openai.OpenAI, expert: Adapter) -> None:
    """Left out, the temperature is 1 and the seed another one each time, as OpenAI has it; n answers differ."""

    def texts(**options: Any) -> list[str | None]:
        answer = client.chat.completions.create(model="finance", messages=MESSAGES, **options)
        return [choice.message.content for choice in answer.choices]

    assert len(set(texts() + texts() + texts())) > 1
    assert texts(seed=5) == texts(seed=5) == [answer_to(service, PROMPT, expert.id, temperature=1.0, seed=5)]
    several = texts(seed=5, n=3)
    assert len(set(several)) == 3
    assert several[0] == texts(seed=5)[0]
    assert len(set(texts(temperature=0) + texts(temperature=0))) == 1


def test_length_and_stop(client: openai.OpenAI, expert: Adapter) -> None:
    def choice(**options: Any) -> Any:
        return client.chat.completions.create(model="finance", messages=MESSAGES, temperature=0, **options).choices[0]

    words = choice().message.content.split()
    for name in ("max_tokens", "max_completion_tokens"):
        short = choice(**{name: 2})
        assert (short.message.content.split(), short.finish_reason) == (words[:2], "length")
    for stop in (words[1], [words[1], "never"]):
        stopped = choice(stop=stop)
        assert (stopped.message.content.split(), stopped.finish_reason) == (words[:1], "stop")


def test_chat_stream(service: Service, client: openai.OpenAI, expert: Adapter) -> None:
    for _ in range(2):
        whole = client.chat.completions.create(model="finance", messages=MESSAGES, temperature=0)
    with client.chat.completions.with_streaming_response.create(
        model="finance", messages=MESSAGES, temperature=0, stream=True, stream_options={"include_usage": True}
    ) as response:
        assert response.headers["x-selfspec-adapter"] == "finance@v1"
        assert response.headers["content-type"].startswith("text/event-stream")
        chunks = list(response.parse())
    *parts, last = chunks
    assert last.choices == []
    assert last.usage is not None and whole.usage is not None
    assert last.usage == whole.usage
    assert last.usage.prompt_tokens_details is not None
    assert last.usage.prompt_tokens_details.cached_tokens  # the question was asked before
    assert all(part.usage is None and part.model == "finance@v1" for part in parts)
    assert {part.id for part in chunks} == {last.id}
    assert parts[0].choices[0].delta.role == "assistant"
    assert len(parts) > 3
    assert "".join(part.choices[0].delta.content or "" for part in parts) == whole.choices[0].message.content
    assert [part.choices[0].finish_reason for part in parts] == [None] * (len(parts) - 1) + ["stop"]


def test_stream_of_several_answers(client: openai.OpenAI, expert: Adapter) -> None:
    options: dict[str, Any] = {"model": "finance", "messages": MESSAGES, "seed": 5, "n": 3}
    whole = client.chat.completions.create(**options)
    texts = {0: "", 1: "", 2: ""}
    ended = []
    for chunk in client.chat.completions.create(stream=True, **options):
        [choice] = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        ended += [choice.index] if choice.finish_reason else []
    assert list(texts.values()) == [choice.message.content for choice in whole.choices]
    assert sorted(ended) == [0, 1, 2]


def test_completions(service: Service, client: openai.OpenAI, expert: Adapter) -> None:
    """Prompts are put into the template as messages are; ``raw`` ones are not."""
    answer = client.completions.create(
        model="finance", prompt=["Good or bad?\n\nProfit of firm 3", "Why?"], temperature=0, n=2, max_tokens=32
    )
    first = answer_to(service, PROMPT, expert.id)
    second = answer_to(service, ALPACA.render("Why?"), expert.id)
    assert [(choice.index, choice.text) for choice in answer.choices] == list(enumerate([first, first, second, second]))
    assert (answer.object, answer.model) == ("text_completion", "finance@v1")
    raw = client.completions.create(model="fake-base", prompt="Once upon", temperature=0, extra_body={"raw": True})
    assert raw.choices[0].text == answer_to(service, "Once upon", None, max_new_tokens=16)
    assert raw.usage is not None
    assert raw.usage.prompt_tokens == 2


def test_completion_stream(client: openai.OpenAI, expert: Adapter) -> None:
    options: dict[str, Any] = {"model": "finance", "prompt": "Good or bad?", "temperature": 0, "max_tokens": 32}
    whole = client.completions.create(**options)
    chunks = list(client.completions.create(stream=True, **options))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {(chunk.object, chunk.model) for chunk in chunks} == {("text_completion", "finance@v1")}


def test_chat_logprobs(client: openai.OpenAI, expert: Adapter) -> None:
    """Whole and streamed, they are those of the very tokens of the answer."""
    options: dict[str, Any] = {
        "model": "finance",
        "messages": MESSAGES,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 2,
    }
    [choice] = client.chat.completions.create(**options).choices
    assert choice.logprobs is not None
    tokens = choice.logprobs.content
    assert tokens
    assert "".join(token.token for token in tokens) == choice.message.content
    assert all(bytes(token.bytes or []).decode() == token.token for token in tokens)
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens)
    streamed = [
        token
        for chunk in client.chat.completions.create(stream=True, **options)
        if (told := chunk.choices[0].logprobs) is not None
        for token in told.content or []
    ]
    assert streamed == tokens


def test_completion_logprobs(client: openai.OpenAI, expert: Adapter) -> None:
    options: dict[str, Any] = {"model": "finance", "prompt": "Good?", "temperature": 0, "logprobs": 1}
    [choice] = client.completions.create(**options).choices
    told = choice.logprobs
    assert told is not None
    assert told.tokens and told.token_logprobs and told.text_offset and told.top_logprobs
    for token, logprob, offset, top in zip(
        told.tokens, told.token_logprobs, told.text_offset, told.top_logprobs, strict=True
    ):
        assert choice.text[offset : offset + len(token)] == token
        assert top[token] == logprob
    streamed = [chunk.choices[0].logprobs for chunk in client.completions.create(stream=True, **options)]
    assert [offset for one in streamed if one for offset in one.text_offset or []] == told.text_offset


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "label", "schema": {"type": "object"}, "strict": True}},
    ],
)
def test_response_format(client: openai.OpenAI, expert: Adapter, response_format: Any) -> None:
    answer = client.chat.completions.create(model="finance", messages=MESSAGES, response_format=response_format)
    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


def test_a_new_champion_answers_at_once(service: Service, client: openai.OpenAI) -> None:
    service.add_expert("sport", weights=b"\2" * 32)
    assert client.chat.completions.create(model="sport", messages=MESSAGES).model == "sport@v1"
    service.add_expert("sport", weights=b"\3" * 32)
    assert client.chat.completions.create(model="sport", messages=MESSAGES).model == "sport@v2"
    assert client.chat.completions.create(model="sport@v1", messages=MESSAGES).model == "sport@v1"


def test_leaving_a_stream_frees_the_model(start: Callable[..., Service]) -> None:
    engine = FakeEngine()
    service = start(engine=engine)
    service.add_expert()
    with client_of(service) as client, engine.hold(after_pieces=1):
        stream = client.chat.completions.create(model="finance", messages=MESSAGES, n=2, stream=True)
        next(stream)
        stream.close()
        engine.wait_stats(cancelled=2)
        assert engine.state().running == 0


def test_async_client(start: Callable[..., Service]) -> None:
    """A task that is cancelled frees what it held; one beside it, and a stream, go on."""
    engine = FakeEngine()
    service = start(engine=engine)

    async def walk(client: openai.AsyncOpenAI) -> list[str | None]:
        def ask() -> asyncio.Task[Any]:
            return asyncio.create_task(client.chat.completions.create(model="fake-base", messages=MESSAGES, seed=5))

        with engine.hold():
            leaves, stays = ask(), ask()
            await asyncio.to_thread(engine.wait_stats, waiting=2)
            leaves.cancel()
            await asyncio.to_thread(engine.wait_stats, cancelled=1)
        stream = await client.chat.completions.create(model="fake-base", messages=MESSAGES, seed=5, stream=True)
        streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        return [(await stays).choices[0].message.content, streamed]

    async def main() -> list[str | None]:
        http = openai.DefaultAsyncHttpxClient(trust_env=False, verify=False)
        async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="any", http_client=http) as client:
            return await walk(client)

    whole, streamed = asyncio.run(main())
    assert whole
    assert streamed == whole
