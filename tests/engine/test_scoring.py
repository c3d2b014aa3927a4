"""How likely texts are: what transformers and PEFT compute for each text alone, however they are batched."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from app.core.errors import InvalidInput, NotReady, Problem, SelfspecError
from app.core.records import GenerationRequest, ScoreRequest
from app.engine.base import BaseOptions
from app.engine.engine import EngineSizes, TorchEngine
from app.engine.scoring import score
from tests.engine.beside import Beside, write_writing_base
from tests.engine.tiny import CONTEXT, EOS, logits_of, make_model, write_adapter

PROMPTS = ["", "the firm", "the revenue of the third quarter rose, and so", "the board"]
CONTINUATIONS = ["", "x", "positive", "negative, for the margin of the firm fell while guidance was raised"]
SIZES = [
    pytest.param({}, id="at once"),
    pytest.param({"num_tokens": 8, "num_rows": 3, "num_bytes": 4 * 288 * 7}, id="in parts"),
]


def log_probability(model: Any, prompt: list[int], ids: list[int]) -> float:
    """By one forward pass over the whole text."""
    told = torch.log_softmax(logits_of(model, prompt + ids).double(), dim=-1)
    return sum(float(told[len(prompt) - 1 + number, token]) for number, token in enumerate(ids))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("family", ["llama", "gpt2", "mpt", "gemma3", "falcon-alibi"])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # PEFT, of Conv1D layers
def test_a_score_is_what_transformers_computes_for_the_text_alone(
    family: str, sizes: dict[str, int], tmp_path: Path
) -> None:
    beside = Beside(make_model(family), tmp_path, adapters="a")
    requests = [
        ScoreRequest(prompt, continuation, adapter, with_end)
        for adapter in (None, "a")
        for prompt in PROMPTS
        for continuation in CONTINUATIONS
        for with_end in (False, True)
    ]
    random.Random(0).shuffle(requests)
    base = beside.base
    for request, told in zip(requests, score(beside.passes(**sizes), requests), strict=True):
        ids = base.encode_continuation(request.continuation) + [EOS] * request.with_end
        wanted = log_probability(beside.alone[request.adapter], base.encode(request.prompt), ids)
        assert told.num_tokens == len(ids)
        assert told.log_probability == pytest.approx(wanted, abs=1e-4, rel=0), request


def test_a_prompt_is_computed_once_for_all_that_follow_it(tmp_path: Path) -> None:
    beside = Beside(make_model("llama"), tmp_path)
    labels = ["positive", "negative", "neutral"]
    requests = [ScoreRequest(prompt, label) for label in labels for prompt in PROMPTS]
    told = score(beside.passes(num_rows=64), requests)
    assert len({each.log_probability for each in told}) == len(requests)
    assert beside.num_passes == 3, "the prompts, a copy of them for each label, and the labels"


def test_a_text_that_does_not_fit_is_refused_with_its_field(tmp_path: Path) -> None:
    passes = Beside(make_model("llama"), tmp_path).passes()
    assert score(passes, [ScoreRequest("p" * 100, "c" * 27, with_end=True)])[0].num_tokens == 28
    with pytest.raises(InvalidInput) as refusal:
        score(passes, [ScoreRequest("x", "y"), ScoreRequest("p" * 100, "c" * 28, with_end=True)])
    reason = f"it has 100 tokens, with 29 after it; the base reads {CONTEXT}"
    assert refusal.value.problems == (Problem("prompt", reason),)


def test_numbers_that_are_none_are_told_so(tmp_path: Path) -> None:
    model = make_model("llama")
    beside = Beside(model, tmp_path)
    model.model.embed_tokens.weight[beside.base.encode("~")] = torch.nan
    assert score(beside.passes(), [ScoreRequest("the firm", "rose")])[0].log_probability < 0
    with pytest.raises(SelfspecError, match="the base computed no numbers"):
        score(beside.passes(), [ScoreRequest("the firm", "rose"), ScoreRequest("a ~ b", "rose")])


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[TorchEngine]:
    folder = write_writing_base(tmp_path / "base")
    options = BaseOptions(name="tiny", hub_id="tiny", dtype="float32", device="cpu")
    engine = TorchEngine(options, lambda: folder, EngineSizes(num_slots=1, max_rank=8, max_batch=4))
    engine.wait_ready(60)
    yield engine
    engine.close()


def test_scores_and_answers_go_on_beside_each_other(engine: TorchEngine, tmp_path: Path) -> None:
    """More adapters than slots, and an answer still being written with one of them."""
    for seed, name in enumerate("ab"):
        engine.attach(name, write_adapter(make_model("llama"), tmp_path / name, seed=seed + 1))
    asked = [GenerationRequest(f"the firm {n}", "ab"[n % 2], max_new_tokens=60, ignore_end=True) for n in range(4)]
    texts = [ScoreRequest("the firm", word, name) for word in ("rose", "fell") for name in (None, *"ab")]
    answers, scores = engine.generate(asked), engine.score(texts)
    running = [engine.submit(request) for request in asked]
    for _ in range(3):
        beside = engine.score(texts)
        assert [told.log_probability for told in beside] == pytest.approx([told.log_probability for told in scores])
    assert [future.result(60).text for future in running] == [answer.text for answer in answers]
    assert len({told.log_probability for told in scores}) == len(texts)
    engine.detach("a")
    assert engine.submit(GenerationRequest("x", max_new_tokens=1)).result(60)
    assert [proof.adapter for proof in engine.attachments()] == ["b"]
    assert engine.state().host_bytes == engine.attachments()[0].num_bytes, "nothing holds what was scored with"


def test_an_answer_is_as_likely_as_it_was_told_to_be(engine: TorchEngine) -> None:
    answer = engine.submit(GenerationRequest("the firm", max_new_tokens=20, logprobs=0)).result(60)
    (told,) = engine.score([ScoreRequest("the firm", answer.text)])
    assert told.num_tokens == answer.completion_tokens > 2
    assert told.log_probability == pytest.approx(sum(token.logprob for token in answer.logprobs), abs=1e-4)


def test_closing_ends_a_score_that_waits_for_its_slot(engine: TorchEngine, tmp_path: Path) -> None:
    for name, pin in (("b", False), ("a", True)):
        engine.attach(name, write_adapter(make_model("llama"), tmp_path / name), pin=pin)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(engine.score, [ScoreRequest("the firm", "rose", "b")])
        while not engine.state().waiting and not engine.stats()["waiting"]:
            assert not waits.done()
        engine.close()
        with pytest.raises(NotReady):
            waits.result(60)
