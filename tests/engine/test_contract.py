"""What the ports promise, kept by the real engine and by the fake one alike."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.core.errors import AdapterRefused, DeadlineExceeded, InvalidInput, NotFound, NotReady, SelfspecError
from app.core.ports import Engine
from app.core.recipe import Recipe
from app.core.records import (
    COUNTERS,
    GenerationRequest,
    MixtureCompletion,
    MixtureRequest,
    Piece,
    ScoreRequest,
    TrainingReport,
    TrainingRow,
    TrainingStep,
)
from app.engine.base import BaseOptions
from app.engine.engine import EngineSizes, TorchEngine
from app.engine.fake import FakeEngine
from tests.engine.tiny import CONTEXT, write_base

RECIPE = Recipe(lora_rank=4, batch_size=3, epochs=2, learning_rate=5e-2, max_length=64, warmup_fraction=0.0)
ROWS = [TrainingRow(f"question {n}: ", "positive" if n % 2 else "negative") for n in range(6)]
NUM_SLOTS = 2


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


Build = Callable[..., Engine]


@pytest.fixture(params=["real", "fake"])
def build(request: pytest.FixtureRequest) -> Iterator[Build]:
    """Makes engines of one kind; ``base`` names another base than the usual one."""
    engines: list[Engine] = []
    folder: Path = request.getfixturevalue("base_folder")
    other: Callable[[], Path] = lambda: write_base(request.getfixturevalue("tmp_path") / "other", seed=9)  # noqa: E731

    def build(base: str = "tiny") -> Engine:
        if request.param == "fake":
            engines.append(FakeEngine(slots=NUM_SLOTS, base_name=base))
        else:
            options = BaseOptions(name=base, hub_id=base, dtype="float32", device="cpu")
            fetch = (lambda: folder) if base == "tiny" else other
            engines.append(TorchEngine(options, fetch, EngineSizes(num_slots=NUM_SLOTS, max_rank=8, max_batch=4)))
        engines[-1].wait_ready(60)
        return engines[-1]

    yield build
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(build: Build) -> Engine:
    return build()


def train(engine: Engine, folder: Path, *, seed: int = 0) -> TrainingReport:
    recipe = RECIPE.model_copy(update={"seed": seed})
    return engine.train(ROWS, recipe=recipe, folder=folder, on_step=lambda step: None)


def ask(prompt: str = "the firm", **changes: object) -> GenerationRequest:
    return GenerationRequest(prompt, **{"max_new_tokens": 6, **changes})  # type: ignore[arg-type]


def test_it_says_what_it_loaded(engine: Engine) -> None:
    info = engine.wait_ready(0)
    assert info == engine.base
    assert (info.name, info.quantization, info.dtype, len(info.fingerprint)) == ("tiny", "none", "float32", 16)
    assert info.context_tokens > 0
    assert engine.count("the revenue of the firm rose") > engine.count("the firm") > 0


def test_answers_come_in_order_and_are_told_one_by_one(engine: Engine) -> None:
    requests = [ask(f"question {number}", max_new_tokens=2 + number) for number in range(7)]
    told: dict[int, str] = {}
    threads: set[threading.Thread] = set()

    def tell(position: int, completion: object) -> None:
        assert position not in told
        told[position] = completion.text  # type: ignore[attr-defined]
        threads.add(threading.current_thread())

    answers = engine.generate(requests, on_completion=tell)
    assert told == {position: answer.text for position, answer in enumerate(answers)}
    assert threads == {threading.current_thread()}
    for request, answer in zip(requests, answers, strict=True):
        assert answer.adapter is None
        assert answer.finish_reason in ("stop", "length")
        assert answer.prompt_tokens == engine.count(request.prompt)
        assert engine.submit(request).result(60).text == answer.text  # greedy: the same alone


def test_no_question_has_no_answer(engine: Engine) -> None:
    assert engine.generate([]) == []


def test_what_on_completion_raises_reaches_the_caller(engine: Engine) -> None:
    """A bug: it was logged and forgotten, so that a row that could not be written was lost."""

    def fail(position: int, completion: object) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        engine.generate([ask(), ask()], on_completion=fail)
    assert engine.submit(ask()).result(60).text


def test_sampling_repeats_by_its_seed(engine: Engine) -> None:
    one, again, other = engine.generate([ask(temperature=1.0, seed=seed) for seed in (1, 1, 2)])
    assert one.text == again.text != other.text


def test_stop_texts_are_no_part_of_the_answer(engine: Engine) -> None:
    whole = engine.submit(ask(max_new_tokens=20)).result(60).text
    answer = engine.submit(ask(max_new_tokens=20, stop=(whole[2:4],))).result(60)
    assert (answer.text, answer.finish_reason) == (whole[: whole.index(whole[2:4])], "stop")


def test_a_prompt_that_does_not_fit_is_refused_alone(engine: Engine) -> None:
    context = engine.wait_ready(0).context_tokens
    assert context >= CONTEXT
    too_long = engine.submit(ask("the firm " * context))
    too_much = engine.submit(ask(max_new_tokens=context))
    for future in (too_long, too_much):
        with pytest.raises(InvalidInput):
            future.result(60)
    assert engine.submit(ask(max_new_tokens=context - engine.count("the firm") - 100)).result(60)


def test_learning_writes_a_folder_and_repeats_by_its_seed(engine: Engine, tmp_path: Path) -> None:
    steps: list[TrainingStep] = []
    report = engine.train(ROWS, recipe=RECIPE, folder=tmp_path / "a", on_step=steps.append)
    assert [step.step for step in steps] == [1, 2, 3, 4]
    assert {step.num_steps for step in steps} == {report.num_steps} == {4}
    assert (report.num_rows, report.num_dropped, steps[-1].epoch) == (6, 0, 2)
    assert report.last_loss < report.first_loss
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"], config["peft_type"]) == ("tiny", 4, "LORA")

    train(engine, tmp_path / "b")
    train(engine, tmp_path / "c", seed=1)
    weights = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]


def test_an_adapter_is_attached_answers_and_goes(engine: Engine, tmp_path: Path) -> None:
    train(engine, tmp_path / "a")
    assert engine.attachments() == []
    assert not engine.use("one")
    proof = engine.attach("one", tmp_path / "a")
    assert engine.use("one")
    assert engine.attachments() == [proof]
    assert (proof.adapter, proof.rank) == ("one", 4)
    assert proof.slot is not None
    assert min(proof.slot, proof.num_modules, proof.num_bytes, proof.probe_distance) > 0
    assert engine.attach("one", tmp_path / "gone by now") == proof

    bare, expert = engine.generate([ask(max_new_tokens=20), ask(max_new_tokens=20, adapter="one")])
    assert (bare.adapter, expert.adapter) == (None, "one")
    assert bare.text != expert.text

    engine.detach("one")
    engine.detach("one")
    assert engine.attachments() == []
    assert not engine.use("one")
    with pytest.raises(NotFound) as refusal:
        engine.submit(ask(adapter="one")).result(60)
    assert refusal.value.param == "adapter"
    assert engine.submit(ask(max_new_tokens=20)).result(60).text == bare.text


def test_an_unknown_adapter_fails_its_own_request_only(engine: Engine) -> None:
    futures = [engine.submit(ask(adapter=adapter)) for adapter in (None, "nobody", None)]
    assert futures[0].result(60) and futures[2].result(60)
    with pytest.raises(NotFound, match="nobody"):
        futures[1].result(60)


def test_generate_raises_what_a_request_raises(engine: Engine) -> None:
    with pytest.raises(NotFound, match="nobody"):
        engine.generate([ask(), ask(adapter="nobody"), ask()])
    assert engine.submit(ask()).result(60)


def slots(engine: Engine) -> dict[str, int | None]:
    return {proof.adapter: proof.slot for proof in engine.attachments()}


def test_the_least_recently_used_adapter_makes_room(engine: Engine, tmp_path: Path) -> None:
    """It stays in host memory, and has a slot again as soon as it is asked for."""
    for seed, name in enumerate("abc"):
        train(engine, tmp_path / name, seed=seed)
    for name in "abac":  # asking for it again is using it
        engine.attach(name, tmp_path / name)
    before = engine.submit(ask(adapter="a")).result(60)  # so is answering with it
    for _ in range(2):
        for name in "bc":
            assert engine.submit(ask(adapter=name)).result(60).adapter == name
            assert slots(engine)[name] is not None
            assert set(slots(engine)) == set("abc")
    assert slots(engine)["a"] is None
    assert engine.stats()["attachments"] == 3
    assert engine.stats()["evictions"] >= 1
    assert engine.submit(ask(adapter="a")).result(60).text == before.text


def test_more_experts_than_slots_are_all_answered(engine: Engine, tmp_path: Path) -> None:
    names = [f"expert{number}" for number in range(3 * NUM_SLOTS)]
    for seed, name in enumerate(names):
        train(engine, tmp_path / name, seed=seed)
        engine.attach(name, tmp_path / name)
    asked: list[str | None] = [None, *names] * 4
    answers = engine.generate([ask(adapter=name, max_new_tokens=12) for name in asked])
    assert [answer.adapter for answer in answers] == asked
    by_expert = {answer.adapter: answer.text for answer in answers}
    assert [answer.text for answer in answers] == [by_expert[name] for name in asked]
    assert len(set(by_expert.values())) > NUM_SLOTS


def test_a_pinned_adapter_keeps_its_slot(engine: Engine, tmp_path: Path) -> None:
    for seed, name in enumerate("abcd"):
        train(engine, tmp_path / name, seed=seed)
    pinned = engine.attach("a", tmp_path / "a", pin=True)
    for name in "bcb":
        engine.attach(name, tmp_path / name)
        engine.submit(ask(adapter=name)).result(60)
    assert slots(engine)["a"] == pinned.slot is not None
    engine.attach("d", tmp_path / "d", pin=True)
    with pytest.raises(NotReady, match="pinned"):
        engine.attach("c", tmp_path / "c", pin=True)


def test_the_pieces_of_an_answer_are_its_text(engine: Engine) -> None:
    pieces: list[Piece] = []
    answer = engine.submit(ask(max_new_tokens=20), on_piece=pieces.append).result(60)
    assert "".join(piece.text for piece in pieces) == answer.text != ""
    assert sum(piece.num_tokens for piece in pieces) <= answer.completion_tokens


def test_log_probabilities_are_told_of_each_token(engine: Engine) -> None:
    plain, told = engine.generate([ask(max_new_tokens=20), ask(max_new_tokens=20, logprobs=3)])
    assert (plain.logprobs, told.text) == ((), plain.text)
    assert len(told.logprobs) == told.completion_tokens
    for token in told.logprobs:
        assert token.logprob <= 0
        assert len(token.top) == 3
        assert [logprob for _, logprob in token.top] == sorted((logprob for _, logprob in token.top), reverse=True)
        assert token.top[0][1] >= token.logprob
    chosen_only = engine.submit(ask(max_new_tokens=20, logprobs=0)).result(60)
    assert [(token.token, token.top) for token in chosen_only.logprobs] == [(each.token, ()) for each in told.logprobs]


def test_a_text_has_its_likelihood(engine: Engine, tmp_path: Path) -> None:
    """After its own prompt, by its own adapter; of more adapters than there are slots, and of the base, at once."""
    for seed, name in enumerate("abc"):
        train(engine, tmp_path / name, seed=seed)
        engine.attach(name, tmp_path / name)
    texts = [ScoreRequest(prompt, "rose", name) for prompt in ("the firm", "the") for name in (None, *"abc")]
    told = engine.score(texts)
    assert len({each.log_probability for each in told}) == len(texts)
    assert engine.score(texts[::-1]) == pytest.approx(told[::-1])
    assert {each.num_tokens for each in told} == {engine.score([ScoreRequest("", "rose")])[0].num_tokens}
    assert engine.score([]) == []

    bare, ended = engine.score([ScoreRequest("the firm", "rose", with_end=end) for end in (False, True)])
    assert ended.log_probability < bare.log_probability < 0
    assert ended.num_tokens == bare.num_tokens + 1
    nothing, end = engine.score([ScoreRequest("the firm", "", with_end=end) for end in (False, True)])
    assert (nothing.log_probability, nothing.num_tokens, end.num_tokens) == (0, 0, 1)


def test_what_it_writes_is_likelier_than_what_it_does_not(engine: Engine) -> None:
    answer = engine.submit(ask("the firm", logprobs=0, max_new_tokens=1)).result(60)
    own, other = engine.score([ScoreRequest("the firm", text) for text in (answer.text, "zebra")])
    assert own.log_probability > other.log_probability


def mix(engine: Engine, *prompts: str, **changes: object) -> MixtureCompletion:
    weights = tuple(1 / len(prompts) for _ in prompts)
    request = MixtureRequest(prompts, **{"weights": weights, "max_new_tokens": 12, **changes})  # type: ignore[arg-type]
    return engine.generate_mixture([request])[0]


def test_a_mixture_of_one_prompt_is_its_answer(engine: Engine, tmp_path: Path) -> None:
    train(engine, tmp_path / "a")
    engine.attach("a", tmp_path / "a")
    for adapter in (None, "a"):
        alone = engine.submit(ask(max_new_tokens=12, adapter=adapter, logprobs=0)).result(60)
        for mode in ("sequence", "token"):
            for prompts in (["the firm"], ["the firm"] * 3):
                mixed = mix(engine, *prompts, mode=mode, adapter=adapter)
                assert (mixed.text, mixed.finish_reason) == (alone.text, alone.finish_reason)
                assert (mixed.completion_tokens, mixed.adapter) == (alone.completion_tokens, adapter)
                assert mixed.log_probability == pytest.approx(sum(token.logprob for token in alone.logprobs), abs=1e-4)
                assert mixed.weights == pytest.approx([1 / len(prompts)] * len(prompts))


def test_a_mixture_ends_where_an_answer_does(engine: Engine) -> None:
    whole = mix(engine, "the firm", "the board")
    stopped = mix(engine, "the firm", "the board", stop=(whole.text[2:4],))
    assert (stopped.text, stopped.finish_reason) == (whole.text[: whole.text.index(whole.text[2:4])], "stop")
    short = mix(engine, "the firm", "the board", max_new_tokens=2)
    assert (short.completion_tokens, short.finish_reason) == (2, "length")
    assert whole.text.startswith(short.text)


def test_the_weights_of_a_mixture_follow_its_mode(engine: Engine) -> None:
    weights = (0.25, 0.75)
    fixed = mix(engine, "the firm", "the board", weights=weights, mode="token")
    updated = mix(engine, "the firm", "the board", weights=weights, mode="sequence")
    assert fixed.weights == pytest.approx(weights)
    assert sum(updated.weights) == pytest.approx(1)
    assert updated.weights != pytest.approx(weights)
    assert max(fixed.log_probability, updated.log_probability) < 0


def test_mixtures_and_scores_that_cannot_be_are_refused(engine: Engine) -> None:
    context = engine.wait_ready(0).context_tokens
    for weights in ((0.5, 0.6), (1.0,), (-0.5, 1.5)):
        with pytest.raises(InvalidInput) as refusal:
            mix(engine, "the firm", "the board", weights=weights)
        assert refusal.value.problems[0].field == "weights"
    with pytest.raises(InvalidInput) as refusal:
        engine.generate_mixture([MixtureRequest((), ())])
    assert refusal.value.problems[0].field == "prompts"
    with pytest.raises(InvalidInput):
        mix(engine, "the firm", "the firm " * context)
    with pytest.raises(InvalidInput):
        engine.score([ScoreRequest("the firm", "rose " * context)])
    with pytest.raises(NotFound, match="nobody"):
        mix(engine, "the firm", adapter="nobody")
    with pytest.raises(NotFound, match="nobody"):
        engine.score([ScoreRequest("the firm", "rose"), ScoreRequest("the firm", "rose", "nobody")])


def test_a_schema_is_kept(engine: Engine) -> None:
    properties = {"up": {"type": "boolean"}}
    schema = {"type": "object", "properties": properties, "required": ["up"], "additionalProperties": False}
    asked = [ask(max_new_tokens=40, schema=json.dumps(schema), temperature=1.0, seed=seed) for seed in range(3)]
    for answer in engine.generate(asked):
        assert list(json.loads(answer.text)) == ["up"]
        assert answer.finish_reason == "stop"
    with pytest.raises(InvalidInput):
        engine.submit(ask(schema="{")).result(60)


def test_a_request_whose_time_is_over_is_told_so(engine: Engine) -> None:
    with pytest.raises(DeadlineExceeded):
        engine.submit(ask(timeout_seconds=0.0)).result(60)
    assert engine.stats()["timeouts"] == 1


def test_a_text_is_clipped_to_its_beginning(engine: Engine) -> None:
    text = "the revenue of the firm rose by 12.5 %, as the board had said"
    for most in (0, 1, 5, 11, 1000):
        clipped = engine.clip(text, most)
        assert text.startswith(clipped)
        assert not clipped or engine.count(clipped) <= most
    assert clipped == text
    assert engine.clip(text, 11) != ""


def test_its_state_is_told(engine: Engine, tmp_path: Path) -> None:
    train(engine, tmp_path / "a")
    engine.attach("a", tmp_path / "a")
    state = engine.state()
    assert (state.num_slots, state.running, state.waiting, state.cache_bytes) == (NUM_SLOTS, 0, 0, 0)
    assert [(expert.adapter, expert.slot) for expert in state.experts] == [(None, 0), ("a", 1)]
    assert state.experts[1].num_bytes > 0
    engine.generate([ask(max_new_tokens=4), ask(max_new_tokens=4, adapter="a")])
    state = engine.state()
    assert sum(state.steps_by_rows.values()) == engine.stats()["batches"] > 0
    assert state.rows_by_slots.get(1, 0) == engine.stats()["adapter_rows"]


def test_a_refused_adapter_leaves_the_others(engine: Engine, build: Build, tmp_path: Path) -> None:
    for name in "ab":
        train(engine, tmp_path / name)
        engine.attach(name, tmp_path / name)
    before = engine.attachments()
    train(build(base="other"), tmp_path / "other's")
    (tmp_path / "empty").mkdir()
    for name in ("other's", "empty", "nowhere"):
        with pytest.raises(AdapterRefused):
            engine.attach(name, tmp_path / name)
    assert engine.attachments() == before
    assert engine.submit(ask(adapter="a")).result(60).adapter == "a"


def test_it_counts(engine: Engine) -> None:
    assert engine.stats() == dict.fromkeys(COUNTERS, 0)
    answers = engine.generate([ask(), ask("the board raised")])
    after = engine.stats()
    assert after["requests"] == 2
    assert after["prompt_tokens"] == sum(answer.prompt_tokens for answer in answers)
    assert after["generated_tokens"] == sum(answer.completion_tokens for answer in answers)
    assert after["batches"] >= 1


def test_closed_is_not_ready(engine: Engine, tmp_path: Path) -> None:
    train(engine, tmp_path / "a")
    engine.close()
    engine.close()
    with pytest.raises(NotReady):
        engine.submit(ask()).result(60)
    with pytest.raises(NotReady):
        engine.generate([ask()])
    with pytest.raises(NotReady):
        engine.score([ScoreRequest("the firm", "rose")])
    with pytest.raises(NotReady):
        mix(engine, "the firm")
    with pytest.raises(NotReady):
        engine.wait_ready(60)
    with pytest.raises(NotReady):
        engine.attach("a", tmp_path / "a")
    assert issubclass(NotReady, SelfspecError)
