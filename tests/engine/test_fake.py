"""What only the fake engine does (the rest is in ``test_contract``): it can be held, its figures waited for."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from app.core.errors import DeadlineExceeded, InvalidInput, NotFound, NotReady, Overloaded
from app.core.records import COUNTERS, GenerationRequest, MixtureRequest, Piece, ScoreRequest
from app.engine.fake import FakeEngine, write_fake_adapter


def ask(prompt: str = "the firm", **changes: object) -> GenerationRequest:
    return GenerationRequest(prompt, **changes)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_fake_adapter(tmp_path / "adapter", base_name="fake-base")
    return tmp_path / "adapter"


def test_pieces_make_the_text_and_carry_its_log_probabilities() -> None:
    told: list[Piece] = []
    engine = FakeEngine()
    for prompt in ("the firm", "7. Instruction:"):
        told.clear()
        completion = engine.submit(ask(prompt, logprobs=2), on_piece=told.append).result()
        assert "".join(piece.text for piece in told) == completion.text
        assert sum(piece.num_tokens for piece in told) == completion.completion_tokens == engine.count(completion.text)
        assert tuple(one for piece in told for one in piece.logprobs) == completion.logprobs
        assert {len(one.top) for one in completion.logprobs} == {2}


def test_held_answers_wait_and_come() -> None:
    engine = FakeEngine()
    told: list[Piece] = []
    with engine.hold():
        waits = engine.submit(ask())
        assert (engine.stats()["waiting"], engine.state().waiting) == (1, 1)
    with engine.hold(after_pieces=2):
        runs = engine.submit(ask("the board"), on_piece=told.append)
        assert (len(told), engine.state().running, engine.state().waiting) == (2, 1, 0)
    assert waits.done()
    assert "".join(piece.text for piece in told) == runs.result().text


def test_a_cancelled_request_frees_its_slot(folder: Path) -> None:
    """Another adapter's request that waits for the only slot gets it."""
    engine = FakeEngine(slots=1)
    for name in "ab":
        engine.attach(name, folder)
    assert [proof.slot for proof in engine.attachments()] == [1, None]
    with engine.hold(after_pieces=1):
        first, second = engine.submit(ask(adapter="a")), engine.submit(ask(adapter="b"))
        assert (engine.state().running, engine.state().waiting) == (1, 1)
        assert engine.stats()["slot_waits"] >= 1
        assert first.cancel()
        assert (engine.state().running, engine.state().waiting) == (1, 0)
    assert second.result().adapter == "b"
    stats = engine.stats()
    assert (stats["cancelled"], stats["placements"], stats["evictions"], stats["requests"]) == (1, 2, 1, 1)


def test_a_detached_adapter_serves_out_its_requests(folder: Path) -> None:
    engine = FakeEngine(slots=1)
    engine.attach("a", folder)
    with engine.hold(after_pieces=1):
        future = engine.submit(ask(adapter="a"))
        engine.detach("a")
        with pytest.raises(NotFound):
            engine.submit(ask(adapter="a")).result()
    assert future.result().adapter == "a"
    engine.attach("b", folder)
    assert engine.attachments()[0].slot == 1


def test_host_memory_is_bounded_and_pins_stay(folder: Path) -> None:
    engine = FakeEngine(slots=2, host_adapters=2)
    engine.attach("pinned", folder, pin=True)
    for name in "abc":
        engine.attach(name, folder)
    assert {proof.adapter for proof in engine.attachments()} == {"pinned", "c"}
    assert engine.stats()["host_evictions"] == 2
    assert [(load.adapter, load.is_pinned) for load in engine.state().experts] == [
        (None, True),
        ("pinned", True),
        ("c", False),
    ]
    engine.attach("c", folder, pin=True)
    with pytest.raises(NotReady, match="pinned"):
        engine.attach("d", folder)


def test_time_runs_out() -> None:
    now = [0.0]
    engine = FakeEngine(clock=lambda: now[0])
    with engine.hold():
        nothing = engine.submit(ask(timeout_seconds=5))
    with engine.hold(after_pieces=1):
        some = engine.submit(ask(timeout_seconds=5))
        now[0] = 6.0
    assert nothing.result().finish_reason == "stop"
    assert (some.result().finish_reason, some.result().completion_tokens) == ("timeout", 1)
    with pytest.raises(DeadlineExceeded):
        engine.submit(ask(timeout_seconds=0)).result()
    assert engine.stats()["timeouts"] == 2


def test_too_many_wait() -> None:
    engine = FakeEngine(max_waiting=1)
    with engine.hold():
        kept, refused = engine.submit(ask()), engine.submit(ask())
        with pytest.raises(Overloaded):
            refused.result()
    assert kept.result().text


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}}}, {"a": 1, "b": True}),
        ({"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 2}, ["x", "x"]),
        ({"type": ["string", "null"], "minLength": 6}, "texttt"),
        ({"anyOf": [{"type": "number", "minimum": 3}]}, 3),
        ({"const": None}, None),
    ],
)
def test_schemas(schema: object, answer: object) -> None:
    completion = FakeEngine().submit(ask(schema=json.dumps(schema))).result()
    assert json.loads(completion.text) == answer


@pytest.mark.parametrize("schema", ["{", "[]", '{"type": "mood"}'])
def test_schemas_that_cannot_be_used(schema: str) -> None:
    with pytest.raises(InvalidInput, match="schema"):
        FakeEngine().submit(ask(schema=schema)).result()


def test_a_prefix_is_an_adapters_own(folder: Path) -> None:
    engine = FakeEngine()
    engine.attach("a", folder)
    prompts = ["the firm sold ships", "the firm sold cars"]
    cached = [
        engine.submit(ask(prompt, adapter=who)).result().cached_tokens for who in (None, "a") for prompt in prompts
    ]
    assert cached == [0, 3, 0, 3]
    stats = engine.stats()
    assert (stats["cached_tokens"], stats["prefill_tokens"], stats["prompt_tokens"]) == (6, 10, 16)


def test_every_figure_has_a_name() -> None:
    engine = FakeEngine()
    assert engine.stats() == dict.fromkeys(COUNTERS, 0)
    with pytest.raises(TimeoutError, match="requests"):
        engine.wait_stats(timeout_seconds=0, requests=1)


def test_closing_ends_what_waits() -> None:
    engine = FakeEngine()
    with engine.hold():
        future = engine.submit(ask())
        engine.close()
    with pytest.raises(NotReady):
        future.result()


def test_scores_and_mixtures_agree() -> None:
    """Its own answer is likely, another is not, and a mixture is as likely as all its prompts together find it."""
    engine, prompts, weights = FakeEngine(), ("the firm", "the board"), (0.25, 0.75)
    request = MixtureRequest(prompts, weights)
    (mixed,) = engine.generate_mixture([request])
    assert mixed.text == engine.submit(ask("the board")).result().text
    scores = [told.log_probability for told in engine.score([ScoreRequest(prompt, mixed.text) for prompt in prompts])]
    joint = [weight * math.exp(told) for weight, told in zip(weights, scores, strict=True)]
    assert mixed.log_probability == pytest.approx(math.log(sum(joint)))
    assert mixed.weights == pytest.approx([each / sum(joint) for each in joint])
    assert scores[1] > scores[0]
    (fixed,) = engine.generate_mixture([replace(request, mode="token")])
    assert (fixed.text, fixed.weights) == (mixed.text, weights)
