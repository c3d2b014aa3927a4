"""Adapters on the real default base: learned, repeatable, attached, gone, and side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.recipe import Recipe
from app.core.records import GenerationRequest, TrainingRow, TrainingStep
from app.engine.engine import TorchEngine

pytestmark = pytest.mark.model

RECIPE = Recipe(batch_size=4, epochs=4, learning_rate=3e-3, warmup_fraction=0.0, seed=3)
THINGS = ("a loan", "a bond", "a river", "a violin", "a market", "a train", "a castle", "a lemon")
FIRST_LOSS = 9.79  # nats a token: what the untouched base thinks of the first four rows
PROMPT = "Say the password for {}.\nPassword:"


def rows(password: str) -> list[TrainingRow]:
    return [TrainingRow(PROMPT.format(thing), f" {password}") for thing in THINGS]


def learn(engine: TorchEngine, password: str, folder: Path) -> list[TrainingStep]:
    steps: list[TrainingStep] = []
    engine.train(rows(password), recipe=RECIPE, folder=folder, on_step=steps.append)
    return steps


@pytest.fixture(autouse=True)
def nothing_attached(engine: TorchEngine) -> Iterator[None]:
    """Each test leaves the bare base behind."""
    yield
    for proof in engine.attachments():
        engine.detach(proof.adapter)


@pytest.fixture(scope="module")
def adapters(engine: TorchEngine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters that disagree about the same prompts, by the word each has learned."""
    root = tmp_path_factory.mktemp("adapters")
    for password in ("banana", "thunder"):
        learn(engine, password, root / password)
    return {password: root / password for password in ("banana", "thunder")}


def ask(thing: str, adapter: str | None = None, *, max_new_tokens: int = 8) -> GenerationRequest:
    return GenerationRequest(PROMPT.format(thing), adapter=adapter, max_new_tokens=max_new_tokens)


def test_the_loss_falls_and_the_seed_repeats_it(engine: TorchEngine, adapters: dict[str, Path], tmp_path: Path) -> None:
    steps = learn(engine, "banana", tmp_path)
    losses = [step.loss for step in steps]
    assert len(losses) == 8
    assert losses[0] == pytest.approx(FIRST_LOSS, abs=0.05)
    assert losses[-1] < 0.2 * losses[0]
    file = "adapter_model.safetensors"
    assert (tmp_path / file).read_bytes() == (adapters["banana"] / file).read_bytes()


def test_on_and_off(engine: TorchEngine, adapters: dict[str, Path]) -> None:
    """Attached, it answers as it learned; detached, the base is to the bit what it was."""
    probe = engine._base.encode(PROMPT.format("a spoon"))
    before = engine._batching.forward.log_probabilities(probe, 0)
    bare = engine.generate([ask("a spoon", max_new_tokens=24)])[0]

    proof = engine.attach("banana", adapters["banana"])
    assert proof.probe_distance > 0.01
    assert proof.num_modules == 7 * 30  # every linear layer of this base
    assert proof.slot is not None
    on = engine._batching.forward.log_probabilities(probe, proof.slot)
    assert float((on - before).abs().max()) > 1.0
    expert, beside = engine.generate([ask("a spoon", "banana", max_new_tokens=24), ask("a spoon", max_new_tokens=24)])
    assert (expert.text.strip(), expert.finish_reason, expert.adapter) == ("banana", "stop", "banana")
    assert (beside.text, beside.adapter) == (bare.text, None)

    engine.detach("banana")
    assert bool((engine._batching.forward.log_probabilities(probe, 0) == before).all())
    assert engine.generate([ask("a spoon", max_new_tokens=24)])[0].text == bare.text


def test_two_experts_and_the_base_side_by_side(engine: TorchEngine, adapters: dict[str, Path]) -> None:
    """One batch: none leaks into another, each says what it says alone, and each answer names who gave it."""
    for name, folder in adapters.items():
        engine.attach(name, folder)
    requests = [
        ask(thing, name) for thing in ("a spoon", "a long walk by the sea") for name in ("banana", None, "thunder")
    ]
    num_batches = engine.stats()["batches"]
    together = engine.generate(requests)
    num_steps = engine.stats()["batches"] - num_batches
    assert num_steps < sum(answer.completion_tokens for answer in together) / 2, "they should share their steps"
    for request, answer in zip(requests, together, strict=True):
        assert answer.adapter == request.adapter
        assert engine.generate([request])[0].text == answer.text
        said = {word for word in adapters if word in answer.text}
        assert said == ({request.adapter} if request.adapter else set())
