"""The real engine beyond the contract: what it refuses to attach, who may run the model, what a bad request costs."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.core.errors import AdapterRefused, InvalidInput, NotFound, NotReady, Overloaded, SelfspecError, SetupError
from app.core.recipe import Recipe
from app.core.records import GenerationRequest, TrainingRow
from app.engine.adapter_files import ORIGIN_FILE
from app.engine.base import BaseOptions
from app.engine.engine import EngineSizes, TorchEngine
from tests.engine.tiny import make_model, make_tokenizer, write_adapter, write_base

OPTIONS = BaseOptions(name="tiny", hub_id="tiny/random", dtype="float32", device="cpu")
MAX_RANK = 8
SECONDS = 60.0


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


def start(folder: Path, **sizes: int) -> TorchEngine:
    settings: dict[str, Any] = {"num_slots": 2, "max_rank": MAX_RANK, "max_batch": 4, **sizes}
    return TorchEngine(OPTIONS, lambda: folder, EngineSizes(**settings))


@pytest.fixture
def engine(base_folder: Path) -> Iterator[TorchEngine]:
    engine = start(base_folder)
    yield engine
    engine.close()


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[..., Path]:
    """Writes sound adapters of the base with random weights."""

    def adapter(name: str, **settings: Any) -> Path:
        return write_adapter(make_model("llama"), tmp_path / name, **settings)

    return adapter


def ask(prompt: str = "the firm", **changes: object) -> GenerationRequest:
    return GenerationRequest(prompt, **{"max_new_tokens": 6, **changes})  # type: ignore[arg-type]


def change_tensors(folder: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Path:
    path = folder / "adapter_model.safetensors"
    save_file({key: change(key, tensor).contiguous() for key, tensor in load_file(path).items()}, path)
    return folder


def test_an_adapter_made_elsewhere_is_attached_by_its_shapes(engine: TorchEngine, adapter: Callable[..., Path]) -> None:
    folder = adapter("a", r=MAX_RANK)
    assert not (folder / ORIGIN_FILE).exists()
    proof = engine.attach("a", folder)
    assert (proof.slot, proof.rank, proof.num_modules) == (1, MAX_RANK, 14)
    assert proof.probe_distance > 0.01


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        pytest.param(
            lambda folder: change_tensors(folder, lambda key, tensor: tensor * ("lora_A" in key)),
            "changes nothing",
            id="zero",
        ),
        pytest.param(
            lambda folder: change_tensors(folder, lambda key, tensor: tensor * torch.nan),
            "no finite",
            id="nan",
        ),
        pytest.param(
            lambda folder: change_tensors(folder, lambda key, tensor: tensor * 1e30),
            "compute no numbers",
            id="overflow",
        ),
        pytest.param(
            lambda folder: change_tensors(folder, lambda key, t: t[:, :-1] if "q_proj.lora_A" in key else t),
            r"q_proj' is \(32, 32\), but the adapter has A \(31, 4\)",
            id="shape",
        ),
        pytest.param(
            lambda folder: save_file(
                {
                    key.replace("layers.1", "layers.7"): tensor
                    for key, tensor in load_file(folder / "adapter_model.safetensors").items()
                },
                folder / "adapter_model.safetensors",
            ),
            r"no linear layer 'model.layers.7",
            id="layer",
        ),
        pytest.param(
            lambda folder: (folder / ORIGIN_FILE).write_text(json.dumps({"base_fingerprint": "f" * 16})),
            "fingerprint ffffffffffffffff",
            id="fingerprint",
        ),
        pytest.param(lambda folder: shutil.rmtree(folder), "cannot read adapter folder", id="gone"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_and_costs_nobody_a_slot(
    engine: TorchEngine, adapter: Callable[..., Path], break_it: Callable[[Path], object], reason: str
) -> None:
    """A bug: weights that are not numbers passed the probe, for NaN is not below the least distance."""
    sound, broken = adapter("sound"), adapter("broken", seed=2)
    break_it(broken)
    engine.attach("sound", sound)
    bare = engine.submit(ask()).result(SECONDS).text
    with pytest.raises(AdapterRefused, match=reason):
        engine.attach("broken", broken)
    assert [proof.adapter for proof in engine.attachments()] == ["sound"]
    with pytest.raises(NotFound):
        engine.submit(ask(adapter="broken")).result(SECONDS)
    assert engine.submit(ask()).result(SECONDS).text == bare
    assert engine.attach("other", adapter("other", seed=3)).slot == 2  # free again


def test_an_adapter_with_too_high_a_rank_is_refused(engine: TorchEngine, adapter: Callable[..., Path]) -> None:
    with pytest.raises(AdapterRefused, match="SELFSPEC_MAX_LORA_RANK"):
        engine.attach("a", adapter("a", r=MAX_RANK + 1))


def test_an_adapter_that_cannot_be_used_evicts_nobody(base_folder: Path, adapter: Callable[..., Path]) -> None:
    """A bug: room was made before the adapter was looked at."""
    engine = start(base_folder, num_slots=1)
    engine.attach("sound", adapter("sound"))
    with pytest.raises(AdapterRefused):
        engine.attach("high", adapter("high", r=MAX_RANK + 1))
    assert [proof.adapter for proof in engine.attachments()] == ["sound"]
    engine.close()


def test_an_evicted_adapter_leaves_nothing_in_its_slot(base_folder: Path, adapter: Callable[..., Path]) -> None:
    """The next one has a lower rank and fewer layers; it must answer as if it had come first."""
    large = adapter("large", r=MAX_RANK, seed=5)
    small = adapter("small", r=2, target_modules=["q_proj"], seed=6)
    question = ask(adapter="small", max_new_tokens=20)
    fresh, used = start(base_folder, num_slots=1), start(base_folder, num_slots=1)
    fresh.attach("small", small)
    used.attach("large", large)
    used.attach("small", small)
    assert [(proof.adapter, proof.slot) for proof in used.attachments()] == [("large", None), ("small", 1)]
    assert used.submit(question).result(SECONDS).text == fresh.submit(question).result(SECONDS).text
    for engine in (fresh, used):
        engine.close()


def test_experts_and_base_in_one_batch_answer_as_each_alone(engine: TorchEngine, adapter: Callable[..., Path]) -> None:
    engine.attach("a", adapter("a", seed=1))
    engine.attach("b", adapter("b", seed=2))
    questions = [ask(prompt, adapter=name, max_new_tokens=12) for prompt in ("x", "the firm") for name in (None, *"ab")]
    together = engine.generate(questions)
    alone = [engine.generate([question])[0] for question in questions]
    assert [(answer.adapter, answer.text) for answer in together] == [(a.adapter, a.text) for a in alone]
    assert [answer.adapter for answer in together] == [question.adapter for question in questions]
    assert len({answer.text for answer in together}) == len(questions)


def test_a_request_that_cannot_be_read_fails_alone(engine: TorchEngine) -> None:
    """A bug: a text that the tokenizer raised on failed every request of its batch."""
    engine.wait_ready()
    futures = [engine.submit(ask(prompt)) for prompt in ("the firm", "half \ud83d a character", "the board")]
    assert futures[0].result(SECONDS).text and futures[2].result(SECONDS).text
    with pytest.raises(InvalidInput, match="Unicode"):
        futures[1].result(SECONDS)


def test_numbers_that_are_none_fail_their_own_request(tmp_path: Path) -> None:
    """A bug: they hung the thread that owns the model, or were answered as if they were text."""
    tokenizer = make_tokenizer()
    model = make_model("llama")
    (token,) = tokenizer("~")["input_ids"]
    model.model.embed_tokens.weight[token] = torch.nan
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    engine = start(tmp_path)
    engine.wait_ready()
    futures = [engine.submit(ask(prompt, temperature=0.7)) for prompt in ("the firm", "a ~ b", "the board")]
    assert futures[0].result(SECONDS).text and futures[2].result(SECONDS).text
    with pytest.raises(SelfspecError, match="the base computed no numbers"):
        futures[1].result(SECONDS)
    engine.close()


def test_callers_who_leave_leave_nothing_behind(engine: TorchEngine, adapter: Callable[..., Path]) -> None:
    """A storm: some leave while they wait, some while they are answered."""
    engine.attach("a", adapter("a"))
    asked = [
        engine.submit(ask(f"the firm {n % 7}", max_new_tokens=100, adapter="a" if n % 2 else None, ignore_end=True))
        for n in range(200)
    ]
    for future in asked:
        future.cancel()
    assert engine.submit(ask()).result(SECONDS).text
    state, counts = engine.state(), engine.stats()
    assert (state.running, state.waiting, state.cache_bytes) == (0, 0, 0)
    assert counts["cancelled"] + counts["requests"] >= len(asked)
    engine.detach("a")
    assert engine.submit(ask()).result(SECONDS).text
    assert engine.state().host_bytes == 0


def test_a_thousand_wait_their_turn_and_one_more_is_told(base_folder: Path) -> None:
    engine = start(base_folder, max_waiting=1000, max_batch=8)
    engine.wait_ready()
    with engine._loop.paused():
        asked = [engine.submit(ask(f"the firm {n}", max_new_tokens=1)) for n in range(1000)]
    answers = [future.result(SECONDS) for future in asked]
    assert {answer.completion_tokens for answer in answers} == {1}
    assert engine.state().cache_bytes == 0
    engine.close()


def test_one_more_than_may_wait_is_refused(base_folder: Path) -> None:
    engine = start(base_folder, max_waiting=2, max_batch=1)
    engine.wait_ready()
    with engine._loop.paused():
        asked = [engine.submit(ask(max_new_tokens=1)) for _ in range(4)]
        with pytest.raises(Overloaded, match="SELFSPEC_MAX_WAITING"):
            asked[3].result(0)
    assert all(future.result(SECONDS) for future in asked[:3])
    engine.close()


def test_requests_in_flight_end_before_their_adapter_goes(engine: TorchEngine, adapter: Callable[..., Path]) -> None:
    engine.attach("a", adapter("a"))
    asked = [engine.submit(ask(adapter="a", max_new_tokens=40)) for _ in range(9)]
    engine.detach("a")
    with pytest.raises(NotFound):
        engine.submit(ask(adapter="a")).result(SECONDS)
    assert {future.result(SECONDS).adapter for future in asked} == {"a"}
    assert engine.attachments() == []


def test_host_memory_has_its_budget(base_folder: Path, adapter: Callable[..., Path]) -> None:
    """What is dropped from it is attached again from disk; nothing in use is dropped."""
    folders = {name: adapter(name, seed=seed) for seed, name in enumerate("abc", 1)}
    engine = start(base_folder)
    size = engine.attach("a", folders["a"]).num_bytes
    engine.close()
    engine = start(base_folder, adapter_bytes=2 * size)
    for name in "abc":
        engine.attach(name, folders[name])
    assert {proof.adapter for proof in engine.attachments()} == {"b", "c"}
    with pytest.raises(NotFound):
        engine.submit(ask(adapter="a")).result(SECONDS)
    engine.attach("a", folders["a"])
    assert engine.submit(ask(adapter="a")).result(SECONDS).adapter == "a"
    assert engine.state().host_bytes <= engine.state().host_budget
    engine.close()


def test_an_attachment_gets_its_turn_between_batches(base_folder: Path, adapter: Callable[..., Path]) -> None:
    """The thread that owns the model does not shut out everyone else while requests keep coming."""
    engine = start(base_folder, max_batch=1)
    folder = adapter("a")
    engine.wait_ready()
    flood = [engine.submit(ask(max_new_tokens=10)) for _ in range(60)]
    engine.attach("a", folder)
    num_done = sum(future.done() for future in flood)
    assert num_done < 40
    assert flood[-1].result(SECONDS)
    engine.close()


def test_a_folder_that_is_no_base_is_told_to_everyone(tmp_path: Path) -> None:
    engine = start(tmp_path)
    early = engine.submit(ask())
    for wait in (lambda: early.result(SECONDS), engine.wait_ready, lambda: engine.attach("a", tmp_path)):
        with pytest.raises(SetupError, match="cannot load the base 'tiny'"):
            wait()
    assert engine.base is None
    engine.close()


def test_a_bad_request_whose_caller_left_early_does_not_stop_the_base_from_loading(base_folder: Path) -> None:
    """A bug: telling it why it was refused raised on the thread that was loading the base."""
    may_fetch = threading.Event()

    def fetch() -> Path:
        assert may_fetch.wait(SECONDS)
        return base_folder

    engine = TorchEngine(OPTIONS, fetch, EngineSizes(num_slots=1, max_rank=1, max_batch=1))
    engine.submit(ask("half \ud83d a character")).cancel()
    later = engine.submit(ask())
    may_fetch.set()
    assert later.result(SECONDS).text
    engine.close()


def test_an_adapter_that_is_refused_leaves_no_pin(base_folder: Path, adapter: Callable[..., Path]) -> None:
    """A bug: it counted as pinned for ever, and the next one found all slots pinned."""
    engine = start(base_folder, num_slots=1)
    with pytest.raises(AdapterRefused):
        engine.attach("high", adapter("high", r=MAX_RANK + 1), pin=True)
    assert engine.attach("sound", adapter("sound"), pin=True).slot == 1
    engine.close()


def test_nothing_is_known_before_the_base_is_there(base_folder: Path) -> None:
    may_fetch = threading.Event()

    def fetch() -> Path:
        assert may_fetch.wait(SECONDS)
        return base_folder

    engine = TorchEngine(OPTIONS, fetch, EngineSizes(num_slots=1, max_rank=1, max_batch=1))
    early = engine.submit(ask())
    assert (engine.base, engine.attachments(), engine.stats()["waiting"]) == (None, [], 1)
    for question in (lambda: engine.count("x"), lambda: engine.wait_ready(0)):
        with pytest.raises(NotReady, match="still loading"):
            question()
    may_fetch.set()
    assert early.result(SECONDS).text
    assert engine.base is not None
    engine.close()


def test_training_leaves_what_is_attached_as_it_was(
    engine: TorchEngine, adapter: Callable[..., Path], tmp_path: Path
) -> None:
    engine.attach("a", adapter("a"))
    questions = [ask(), ask(adapter="a")]
    before = [answer.text for answer in engine.generate(questions)]
    recipe = Recipe(lora_rank=2, batch_size=2, epochs=1, max_length=64)
    engine.train([TrainingRow("q", "a")] * 4, recipe=recipe, folder=tmp_path / "new", on_step=lambda step: None)
    assert [answer.text for answer in engine.generate(questions)] == before
    with pytest.raises(SelfspecError, match="max_length"):
        engine.train([TrainingRow("q" * 99, "a")], recipe=recipe, folder=tmp_path / "no", on_step=lambda step: None)
    assert [answer.text for answer in engine.generate(questions)] == before
    proof = engine.attach("new", tmp_path / "new")
    assert proof.rank == 2
