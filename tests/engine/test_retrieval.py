"""Answers with passages by the real engine on a tiny random base, against the base alone: no cache, no batch.

Whole answers are compared by forward passes over prompt and answer; tokens by the formula, step by step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from app.core.records import Answer, GenerationRequest, Passage
from app.engine.base import BaseOptions
from app.engine.engine import EngineSizes, TorchEngine
from app.pipeline.retrieval import PassageAnswers, passage_prompt, weigh
from tests.engine.tiny import BOS, CONTEXT, EOS, logits_of, make_model, make_tokenizer, write_base
from tests.pipeline.samples import candidate, recipe

NUM_NEW = 8
PROMPT = "Q:"


class Shelf:
    """Finds its passages whatever is asked."""

    def __init__(self, salt: int) -> None:
        texts = ("the firm rose", "margin fell", "a board")
        self.passages = [Passage(str(n), "", f"{text} {salt}", 9.0 - 4 * n) for n, text in enumerate(texts)]

    def search(self, query: str, k: int) -> list[Passage]:
        return self.passages[:k]

    @property
    def weights(self) -> list[float]:
        return [passage.weight for passage in weigh(self.passages, temperature=1.0)]

    @property
    def prompts(self) -> list[str]:
        return [passage_prompt(passage.text, PROMPT) for passage in self.passages]


class Oracle:
    """The same base computed in double precision, one sequence at a time."""

    def __init__(self) -> None:
        self._model = make_model("llama").double()
        self._tokenizer = make_tokenizer()

    def ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text)["input_ids"]
        return ids

    def text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids)))

    def logprobs(self, prompt: str, answer: Sequence[int]) -> Tensor:
        """[answer + 1, vocabulary]: of each token of the answer, and of what follows it."""
        prompt_ids = [BOS, *self.ids(prompt)]
        return logits_of(self._model, [*prompt_ids, *answer]).log_softmax(-1)[len(prompt_ids) - 1 :]

    def whole(self, prompt: str, answer: Sequence[int]) -> float:
        """log p(answer, end | prompt)."""
        told = self.logprobs(prompt, answer)
        return float(told[range(len(answer) + 1), [*answer, EOS]].sum())

    def marginal(self, shelf: Shelf, answer: str) -> float:
        """log Σ_z p(z) p(answer, end | prompt_z)."""
        whole = [self.whole(prompt, self.ids(answer)) for prompt in shelf.prompts]
        return float((torch.tensor(shelf.weights).double().log() + torch.tensor(whole).double()).logsumexp(0))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchEngine]:
    folder = write_base(tmp_path_factory.mktemp("base"))
    options = BaseOptions(name="tiny", hub_id="tiny/random", dtype="float32", device="cpu")
    engine = TorchEngine(options, lambda: folder, EngineSizes(num_slots=1, max_rank=8, max_batch=8))
    engine.wait_ready()
    yield engine
    engine.close()


def answer(engine: TorchEngine, shelf: Shelf, form: str, *, stop: tuple[str, ...] = ()) -> Answer:
    knobs = recipe(retrieval=form, corpus="c", response_max_new_tokens=NUM_NEW, retrieval_top_k=3)
    writer = PassageAnswers(knobs, engine=engine, retriever=shelf, context_tokens=CONTEXT)
    [written] = writer.write([candidate()], [GenerationRequest(PROMPT, max_new_tokens=NUM_NEW, stop=stop)])
    return written


def test_token_takes_the_likeliest_token_of_the_mixture(engine: TorchEngine) -> None:
    oracle, differs = Oracle(), 0
    for salt in range(4):
        shelf = Shelf(salt)
        log_weights, ids = torch.tensor(shelf.weights).double().log(), list[int]()
        while len(ids) < NUM_NEW:
            told = torch.stack([oracle.logprobs(prompt, ids)[-1] for prompt in shelf.prompts])  # [passages, vocabulary]
            token = int((told + log_weights[:, None]).logsumexp(0).argmax())
            if token == EOS:
                break
            ids.append(token)
            log_weights = log_weights + told[:, token]
            log_weights -= log_weights.logsumexp(0)
        written = answer(engine, shelf, "token")
        assert written.text == oracle.text(ids)
        assert [passage.weight for passage in written.passages] == shelf.weights
        [alone] = engine.generate([GenerationRequest(shelf.prompts[0], max_new_tokens=NUM_NEW)])
        differs += written.text != alone.text
    assert differs  # from the best passage's answer, at least once


def test_sequence_takes_the_likeliest_whole_answer(engine: TorchEngine) -> None:
    """A random base ends nothing by itself, so what it writes after two letters is cut off by a stop text."""
    oracle, num_chosen = Oracle(), 0
    for salt in range(4):
        shelf = Shelf(salt)
        stop = tuple("etaoinshrdlu")
        asked = [GenerationRequest(prompt, max_new_tokens=NUM_NEW, stop=stop) for prompt in shelf.prompts]
        own = [done.text for done in engine.generate(asked) if done.finish_reason == "stop" and done.text.strip()]
        chances = {text: oracle.marginal(shelf, text) for text in own}
        written = answer(engine, shelf, "sequence", stop=stop)
        assert written.text == max(chances, key=chances.__getitem__)
        num_chosen += len(chances) > 1
    assert num_chosen >= 2
