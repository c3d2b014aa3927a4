"""One answer from several prompts: what a loop without a cache finds, token by token, in double precision."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from app.core.errors import InvalidInput, SelfspecError
from app.core.records import GenerationRequest, MixtureCompletion, MixtureRequest, ScoreRequest
from app.engine.base import BaseOptions
from app.engine.engine import EngineSizes, TorchEngine
from app.engine.mixture import generate_mixtures
from app.engine.scoring import score
from tests.engine.beside import Beside, write_writing_base, writing_model
from tests.engine.tiny import logits_of

PROMPTS = ("the firm", "the revenue of the third quarter rose, and so", "a board")
WEIGHTS = (0.5, 0.2, 0.3)
MODES = ["sequence", "token"]


@dataclass(frozen=True, slots=True)
class Found:
    """What the loop without a cache finds."""

    ids: list[int]
    log_probability: float
    weights: list[float]


def search(model: Any, prompts: Sequence[list[int]], request: MixtureRequest, *, ends: Sequence[int] = ()) -> Found:
    """Every step of the definition, each prompt computed anew and alone. ``model`` computes in float64."""
    weights, ids, total = list(request.weights), list[int](), 0.0
    while len(ids) < request.max_new_tokens:
        told = torch.stack([logits_of(model, prompt + ids)[-1].softmax(-1) for prompt in prompts])
        mixed = torch.tensor(weights, dtype=torch.float64) @ told
        token = int(mixed.argmax())
        if token in ends:
            break
        ids.append(token)
        total += math.log(mixed[token])
        if request.mode == "sequence":
            joint = [weight * float(of[token]) for weight, of in zip(weights, told, strict=True)]
            weights = [each / sum(joint) for each in joint]
    return Found(ids, total, weights)


def mixture(mode: str = "sequence", **changes: Any) -> MixtureRequest:
    return replace(MixtureRequest(PROMPTS, WEIGHTS, mode, max_new_tokens=12), **changes)


def check(beside: Beside, request: MixtureRequest, told: MixtureCompletion, *, ends: Sequence[int] = ()) -> Found:
    base = beside.base
    model = copy.deepcopy(beside.alone[request.adapter]).double()
    wanted = search(model, [base.encode(prompt) for prompt in request.prompts], request, ends=ends)
    assert told.text == base.tokenizer.decode(wanted.ids, skip_special_tokens=True)
    assert told.completion_tokens == len(wanted.ids)
    assert told.log_probability == pytest.approx(wanted.log_probability, abs=1e-4)
    assert told.weights == pytest.approx(wanted.weights, abs=1e-4)
    return wanted


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", ["llama", "gpt2", "mpt", "gemma3"])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # PEFT, of Conv1D layers
def test_it_is_what_a_loop_without_a_cache_finds(family: str, mode: str, tmp_path: Path) -> None:
    beside = Beside(writing_model(family), tmp_path, adapters="a")
    requests = [mixture(mode), mixture(mode, weights=(0.0, 0.9, 0.1)), mixture(mode, adapter="a")]
    answers = generate_mixtures(beside.passes(), requests)
    for request, told in zip(requests, answers, strict=True):
        check(beside, request, told, ends=[beside.base.eos_id])
        assert told.adapter == request.adapter


def test_a_sequence_is_as_likely_as_all_its_prompts_together_find_it(tmp_path: Path) -> None:
    """Σ_z p(z) p(answer | prompt_z), and the weights are each prompt's share in it."""
    beside = Beside(writing_model("llama"), tmp_path)
    (told,) = generate_mixtures(beside.passes(), [mixture()])
    alone = score(beside.passes(), [ScoreRequest(prompt, told.text) for prompt in PROMPTS])
    joint = [weight * math.exp(each.log_probability) for weight, each in zip(WEIGHTS, alone, strict=True)]
    assert told.log_probability == pytest.approx(math.log(sum(joint)), abs=1e-4)
    assert told.weights == pytest.approx([each / sum(joint) for each in joint], abs=1e-4)
    assert max(told.weights) < 0.999, "a case in which every prompt counts"


def test_the_modes_differ_and_neither_is_one_prompts_answer(tmp_path: Path) -> None:
    beside = Beside(writing_model("llama"), tmp_path)
    alone = [mixture(prompts=(prompt,), weights=(1.0,)) for prompt in PROMPTS]
    texts = [told.text for told in generate_mixtures(beside.passes(), [*map(mixture, MODES), *alone])]
    assert len(set(texts)) == len(texts)


def test_several_end_each_in_its_time_and_others_take_their_rows(tmp_path: Path) -> None:
    """At the end of sequence, at a stop text, at their length; in small batches and parts of prompts too."""
    beside = Beside(writing_model("llama"), tmp_path, adapters="a")
    (long,) = generate_mixtures(beside.passes(), [mixture(max_new_tokens=30)])
    late = max(range(len(long.text)), key=lambda at: long.text.index(long.text[at]))  # a letter that comes last of all
    (end,), stop = beside.base.encode_continuation(long.text[late]), long.text[late - 2 : late]
    beside.base = replace(beside.base, eos_ids=frozenset({end}))
    requests = [
        mixture(max_new_tokens=30),
        mixture("token", max_new_tokens=5, adapter="a"),
        mixture(max_new_tokens=30, stop=(stop,)),
        mixture(prompts=PROMPTS[:1], weights=(1.0,), max_new_tokens=3),
        mixture("token", max_new_tokens=9),
    ]
    one_by_one = [generate_mixtures(beside.passes(), [request])[0] for request in requests]
    assert one_by_one[0].finish_reason == one_by_one[2].finish_reason == "stop"
    assert len(check(beside, requests[0], one_by_one[0], ends=[end]).ids) == late
    assert one_by_one[2].text == long.text[: long.text.index(stop)] != one_by_one[0].text
    for sizes in ({"num_rows": 64}, {"num_rows": 4, "num_tokens": 7}):
        together = generate_mixtures(beside.passes(**sizes), requests)
        for alone, told in zip(one_by_one, together, strict=True):
            assert (told.text, told.finish_reason) == (alone.text, alone.finish_reason)
            assert told.log_probability == pytest.approx(alone.log_probability, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"weights": (0.5, 0.5)}, "weights"),
        ({"weights": (0.5, 0.2, 0.31)}, "weights"),
        ({"weights": (1.5, -0.5, 0.0)}, "weights"),
        ({"weights": (math.nan, 0.5, 0.5)}, "weights"),
        ({"prompts": (), "weights": ()}, "prompts"),
        ({"mode": "both"}, "mode"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"prompts": (*PROMPTS[:2], "x" * 120)}, "prompts"),
    ],
)
def test_what_means_nothing_is_refused_with_its_field(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        generate_mixtures(Beside(writing_model("llama"), tmp_path).passes(), [mixture(**changes)])
    assert [problem.field for problem in refusal.value.problems] == [field]


def test_a_prompt_without_numbers_is_told(tmp_path: Path) -> None:
    model = writing_model("llama")
    beside = Beside(model, tmp_path)
    wanted = generate_mixtures(beside.passes(), [mixture()])
    model.model.embed_tokens.weight[beside.base.encode("~")] = torch.nan
    with pytest.raises(SelfspecError, match="the base computed no numbers"):
        generate_mixtures(beside.passes(num_rows=4), [mixture(prompts=("a ~", "b"), weights=(0.5, 0.5)), mixture()])
    assert generate_mixtures(beside.passes(), [mixture()]) == wanted


def test_mixtures_and_answers_go_on_beside_each_other(tmp_path: Path) -> None:
    folder = write_writing_base(tmp_path / "base")
    options = BaseOptions(name="tiny", hub_id="tiny", dtype="float32", device="cpu")
    engine = TorchEngine(options, lambda: folder, EngineSizes(num_slots=1, max_rank=8, max_batch=4))
    try:
        asked = [GenerationRequest(f"the firm {n}", max_new_tokens=60, ignore_end=True) for n in range(6)]
        answers, mixed = engine.generate(asked), engine.generate_mixture([mixture(), mixture("token")])
        running = [engine.submit(request) for request in asked]
        for told, alone in zip(engine.generate_mixture([mixture(), mixture("token")]), mixed, strict=True):
            assert told.text == alone.text
            assert told.log_probability == pytest.approx(alone.log_probability)
        assert [future.result(60).text for future in running] == [answer.text for answer in answers]
    finally:
        engine.close()
