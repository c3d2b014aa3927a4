"""The longest prompt, a thousand in line, storms of callers who leave: right answers, and nothing stays behind."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.core.errors import InvalidInput
from app.core.records import GenerationRequest
from app.engine.engine import TorchEngine
from tests.engine.tiny import logits_of, with_peft
from tests.limits.house import CONTEXT, SECONDS, leftovers, let_go

pytestmark = pytest.mark.model  # seconds each, with the real engine

Start = Callable[..., TorchEngine]
NEW = 8


@pytest.mark.parametrize("adapter", [None, "a1"])
def test_the_longest_prompt_is_read_whole(
    start: Start, base_folder: Path, adapters: dict[str, Path], adapter: str | None
) -> None:
    """Computed in chunks, beside others, it says what transformers says; one token more is refused with counts."""
    engine = start(prefill_tokens=48)
    if adapter is not None:
        engine.attach(adapter, adapters[adapter])
    draw = random.Random(1)
    words = " ".join(draw.choices(["the margin", "guidance", "fell", "question"], k=CONTEXT))
    prompt = engine.clip(words, CONTEXT - NEW)
    longest = engine.count(prompt)
    assert longest == CONTEXT - NEW
    request = GenerationRequest(prompt, adapter=adapter, max_new_tokens=NEW, ignore_end=True)
    short = GenerationRequest("the firm", max_new_tokens=NEW, ignore_end=True)
    answer, *beside = engine.generate([request, short, short])
    assert answer.text == greedy(base_folder, adapters.get(adapter or ""), prompt)
    assert {each.text for each in beside} == {greedy(base_folder, None, short.prompt)}
    with pytest.raises(InvalidInput, match=f"{longest} tokens and asks for {NEW + 1} more; the base reads {CONTEXT}"):
        engine.generate([GenerationRequest(prompt, max_new_tokens=NEW + 1)])
    let_go(engine)
    assert leftovers(engine) == {}


def greedy(base_folder: Path, adapter: Path | None, prompt: str) -> str:
    """The likeliest answer by the whole prompt's logits, computed anew for each token."""
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    model = with_peft(AutoModelForCausalLM.from_pretrained(base_folder), adapter)
    ids = list(tokenizer(prompt)["input_ids"])
    for _ in range(NEW):
        ids.append(int(logits_of(model, ids)[-1].argmax()))
    return str(tokenizer.decode(ids[-NEW:], skip_special_tokens=True))


def test_a_thousand_in_line_are_all_answered_by_their_own(start: Start, adapters: dict[str, Path]) -> None:
    """Of six experts and the base on two slots; all stand in line before the first is answered."""
    engine = start(max_waiting=1000)
    names = [None, *list(adapters)[:6]]
    for name in names[1:]:
        engine.attach(name, adapters[name])  # type: ignore[arg-type,index]
    questions = [GenerationRequest("the firm", adapter=name, max_new_tokens=2, ignore_end=True) for name in names]
    alone = {question.adapter: engine.submit(question).result(SECONDS).text for question in questions}
    with engine._loop.paused():
        asked = [engine.submit(questions[number % len(questions)]) for number in range(1000)]
    answers = [future.result(SECONDS) for future in asked]
    assert [answer.adapter for answer in answers] == [names[number % len(names)] for number in range(1000)]
    assert all(answer.text == alone[answer.adapter] for answer in answers)
    assert len(set(alone.values())) == len(names)
    let_go(engine)
    assert leftovers(engine) == {}


def test_a_storm_of_callers_who_leave(start: Start, adapters: dict[str, Path]) -> None:
    """Several threads leave at random moments; the one in ten who stay get all of their answer."""
    engine = start(prefix_bytes=100_000)
    names = [None, *list(adapters)[:4]]
    for name in names[1:]:
        engine.attach(name, adapters[name])  # type: ignore[arg-type,index]
    draw = random.Random(3)
    requests = [
        GenerationRequest(
            "the firm " * draw.randrange(1, 30), draw.choice(names), draw.randrange(1, 40), ignore_end=True
        )
        for _ in range(1000)
    ]
    asked = [engine.submit(request) for request in requests]
    stays = set(range(0, 1000, 10))

    def leave(seed: int) -> None:
        draw = random.Random(seed)
        mine = [number for number in range(seed, 1000, 4) if number not in stays]
        draw.shuffle(mine)
        for number in mine:
            for _ in range(draw.choice((0, 0, 1))):
                engine.state()  # a step goes by
            asked[number].cancel()

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(leave, range(4))) == [None] * 4
    answers = {number: asked[number].result(SECONDS) for number in stays}
    assert all(answer.adapter == requests[number].adapter for number, answer in answers.items())
    assert all(answer.completion_tokens == requests[number].max_new_tokens for number, answer in answers.items())
    let_go(engine)
    assert engine.stats()["cancelled"] > 500
    assert engine.stats()["failed"] == 0
    assert leftovers(engine) == {}
