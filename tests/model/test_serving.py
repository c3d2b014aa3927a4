"""Serving with the real base: the unmodified ``openai`` client, repeatable draws, true log-probabilities, shots."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest
import torch
from openai.types.chat import ChatCompletionMessageParam
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.core.cores import num_cores
from app.core.records import GenerationRequest
from app.engine.base import BaseOptions
from app.engine.engine import EngineSizes, TorchEngine
from app.pipeline.template import ALPACA
from tests.api.live import Service, serve
from tests.api.openai_house import client_of
from tests.engine.tiny import logits_of, write_adapter

pytestmark = pytest.mark.model

KEY = "operators-only"
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Name three rivers of Europe."}]
PROMPT = "The three largest rivers of Europe are"
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad"]}, "score": {"type": "integer", "minimum": 0, "maximum": 10}},
    "required": ["mood", "score"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def reference(base_folder: Path) -> Any:
    """The base as transformers has it."""
    return AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)  # in evaluation mode


@pytest.fixture(scope="module")
def service(base_folder: Path, reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With an expert of random weights, loaded as ``expert``."""
    root = tmp_path_factory.mktemp("serving")
    folder = write_adapter(reference, root / "adapters" / "expert", scale=0.06)
    options = BaseOptions(
        name=base_folder.name, hub_id=base_folder.name, dtype="float32", device="cpu", threads=num_cores()
    )
    engine = TorchEngine(options, lambda: base_folder, EngineSizes(num_slots=2, max_rank=8, max_batch=48))
    engine.wait_ready()
    with serve(root / "var", engine=engine, admin_key=KEY, adapter_roots=str(root / "adapters")) as running:
        loaded = running.http.post(
            "/v1/load_lora_adapter",
            json={"lora_name": "expert", "lora_path": str(folder)},
            headers={"Authorization": f"Bearer {KEY}"},
        )
        assert loaded.status_code == 200, loaded.text
        yield running


@pytest.fixture(scope="module")
def engine(service: Service) -> TorchEngine:
    assert isinstance(service.resources.engine, TorchEngine)
    return service.resources.engine


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[openai.OpenAI]:
    with client_of(service) as opened:
        yield opened


def test_streams_say_what_whole_answers_say(client: openai.OpenAI, base_folder: Path) -> None:
    base = base_folder.name
    chat = client.chat.completions.create(model=base, messages=MESSAGES, max_tokens=24, temperature=0)
    chunks = list(
        client.chat.completions.create(
            model=base,
            messages=MESSAGES,
            max_tokens=24,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    said = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert len([piece for piece in said if piece]) > 5
    assert "".join(said) == chat.choices[0].message.content
    assert chat.usage is not None and chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == chat.usage.completion_tokens > 5
    whole = client.completions.create(model=base, prompt=PROMPT, max_tokens=24, temperature=0).choices[0].text
    pieces = client.completions.create(model=base, prompt=PROMPT, max_tokens=24, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in pieces) == whole


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_keeps_its_schema(client: openai.OpenAI, base_folder: Path, temperature: float) -> None:
    answer = client.chat.completions.create(
        model=base_folder.name,
        messages=[{"role": "user", "content": "The market fell. Give mood and score as JSON."}],
        response_format={"type": "json_schema", "json_schema": {"name": "mood", "schema": SCHEMA}},
        temperature=temperature,
        max_tokens=60,
    )
    assert answer.choices[0].finish_reason == "stop"
    jsonschema.validate(json.loads(answer.choices[0].message.content or ""), SCHEMA)


def test_several_answers_differ_and_a_seed_repeats_them(client: openai.OpenAI, base_folder: Path) -> None:
    def draw(seed: int) -> list[str]:
        answers = client.completions.create(
            model=base_folder.name, prompt=PROMPT, max_tokens=16, n=3, temperature=1.0, seed=seed
        )
        return [choice.text for choice in sorted(answers.choices, key=lambda choice: choice.index)]

    first = draw(5)
    assert len(set(first)) == 3
    assert draw(5) == first
    assert not set(draw(100)) & set(first)


def test_base_and_expert_side_by_side(client: openai.OpenAI, base_folder: Path) -> None:
    """Asked at once and again and again, each says what it says alone."""

    def ask(model: str) -> str:
        return client.completions.create(model=model, prompt=PROMPT, max_tokens=16, temperature=0).choices[0].text

    models = [base_folder.name, "expert"]
    alone = {model: ask(model) for model in models}
    assert alone["expert"] != alone[base_folder.name]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, models * 4)) == [alone[model] for model in models * 4]


def test_log_probabilities_are_those_of_transformers(engine: TorchEngine, reference: Any, base_folder: Path) -> None:
    request = GenerationRequest(PROMPT, max_new_tokens=12, logprobs=3, ignore_end=True)
    busy = [GenerationRequest(f"{number}: {PROMPT}", max_new_tokens=12) for number in range(5)]
    answer, *_ = engine.generate([request, *busy])
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    ids = list(tokenizer(PROMPT)["input_ids"])
    for told in answer.logprobs:
        truth = torch.log_softmax(logits_of(reference, ids)[-1].float(), dim=-1)
        likeliest = truth.topk(3).values.tolist()
        assert told.logprob == pytest.approx(likeliest[0], abs=1e-3)  # greedy
        assert [logprob for _, logprob in told.top] == pytest.approx(likeliest, abs=1e-3)
        ids.append(int(truth.argmax()))
        assert told.token == tokenizer.decode(ids[-1:])


def test_a_draw_is_the_same_alone_and_in_a_busy_batch(engine: TorchEngine) -> None:
    """In float32 all twenty are, though 24 others of all lengths, of base and expert, are computed with them."""
    [expert] = [proof.adapter for proof in engine.attachments()]
    drawn = [
        GenerationRequest(f"{PROMPT} {number}", (None, expert)[number % 2], 12, temperature=1.0, seed=number)
        for number in range(20)
    ]
    others = [
        GenerationRequest(f"{'Well, ' * number}{PROMPT}", (None, expert)[number % 2], 4 + number // 2, temperature=0.8)
        for number in range(24)
    ]
    alone = [engine.submit(request).result().text for request in drawn]
    mixed = [other for pair in zip(others, drawn, strict=False) for other in pair] + others[20:]
    texts = {id(request): answer.text for request, answer in zip(mixed, engine.generate(mixed), strict=True)}
    same = sum(texts[id(request)] == text for request, text in zip(drawn, alone, strict=True))
    print(f"{same} of {len(drawn)} draws are the same in a busy batch")
    assert same == len(drawn)
    assert len(set(alone)) == len(drawn)


def test_shots_are_computed_once(engine: TorchEngine) -> None:
    """A hundred items behind the same five demonstrations cost a fourth of their tokens at most; an expert its own."""
    shots = "".join(
        ALPACA.render("Is this good or bad news for the firm?", f"Profit rose by {number} percent.") + "good news\n\n"
        for number in range(5)
    )
    items = [shots + ALPACA.render("Good or bad?", f"Loss of firm {number}.") for number in range(100)]
    before = engine.stats()
    answers = engine.generate([GenerationRequest(item, max_new_tokens=1) for item in items])
    counts = {name: value - before[name] for name, value in engine.stats().items()}
    print(f"{counts['prompt_tokens']} tokens of prompts, {counts['prefill_tokens']} computed")
    assert counts["prompt_tokens"] == sum(answer.prompt_tokens for answer in answers)
    assert counts["prefill_tokens"] * 4 <= counts["prompt_tokens"]
    [expert] = [proof.adapter for proof in engine.attachments()]
    own = [engine.generate([GenerationRequest(items[0], expert, 1)])[0].cached_tokens for _ in range(2)]
    assert own[0] == 0 < own[1]
