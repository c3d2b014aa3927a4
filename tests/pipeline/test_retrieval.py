"""Answers with passages: both forms against brute force, the weights, and what is asked where there is little room."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from app.core.records import (
    Answer,
    Completion,
    GenerationRequest,
    MixtureCompletion,
    MixtureRequest,
    Passage,
    Score,
    ScoreRequest,
)
from app.engine.fake import FakeEngine
from app.pipeline.retrieval import PassageAnswers, passage_prompt, retrieval_checks, weigh
from tests.pipeline.samples import candidate, recipe

WORDS = ("up", "down", "flat")
LONGEST = 4  # words of an answer of the table model: it always ends there
END = None


class TableModel(FakeEngine):
    """A language model over three words and the end, small enough to list every answer with its probability.

    What comes next depends on the prompt and on all words before; ``sure`` is how far from even the choice is.
    """

    def __init__(self, *, sure: float = 1.0) -> None:
        super().__init__()
        self.asked: list[GenerationRequest] = []
        self._sure = sure

    def next(self, prompt: str, before: Sequence[str]) -> dict[str | None, float]:
        """p(next | prompt, before), END among them."""
        if len(before) == LONGEST:
            return {END: 1.0}
        chance = random.Random(f"{prompt}|{list(before)}")
        raw = {word: math.exp(self._sure * chance.gauss(0, 1)) for word in (*WORDS, END)}
        if not before:
            raw[END] = 0.0
        return {word: value / sum(raw.values()) for word, value in raw.items()}

    def probability(self, prompt: str, words: Sequence[str]) -> float:
        """p(words and then the end | prompt)."""
        steps = [self.next(prompt, words[:place])[word] for place, word in enumerate(words)]
        return math.prod(steps) * self.next(prompt, words)[END]

    def greedy(self, prompt: str) -> list[str]:
        words: list[str] = []
        while (word := _best(self.next(prompt, words))) is not END:
            words.append(word)
        return words

    def generate(self, requests: Sequence[GenerationRequest], **_: Any) -> list[Completion]:
        self.asked += requests
        return [_completion(" ".join(self.greedy(request.prompt)), request.adapter) for request in requests]

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        assert all(request.with_end for request in requests)
        each = [(request.prompt, request.continuation.split()) for request in requests]
        return [Score(math.log(self.probability(prompt, words)), len(words) + 1) for prompt, words in each]

    def generate_mixture(self, requests: Sequence[MixtureRequest]) -> list[MixtureCompletion]:
        """Token by token with weights by Bayes' rule, as the engine does."""
        return [self._mix(request) for request in requests]

    def _mix(self, request: MixtureRequest) -> MixtureCompletion:
        assert (request.mode, math.isclose(sum(request.weights), 1.0)) == ("sequence", True)
        words: list[str] = []
        weights, total = list(request.weights), 0.0
        while True:
            tables = [self.next(prompt, words) for prompt in request.prompts]
            word = _best({each: sum(w * t[each] for w, t in zip(weights, tables, strict=True)) for each in tables[0]})
            joint = [weight * table[word] for weight, table in zip(weights, tables, strict=True)]
            total += math.log(sum(joint))
            weights = [value / sum(joint) for value in joint]
            if word is END:
                text = " ".join(words)
                return MixtureCompletion(text, "stop", len(words), request.adapter, total, tuple(weights))
            words.append(word)


class Shelf:
    """A retriever that finds the same passages whatever is asked, and remembers what was."""

    def __init__(self, *passages: Passage) -> None:
        self.passages, self.queries = passages, list[str]()

    def search(self, query: str, k: int) -> list[Passage]:
        self.queries.append(query)
        return list(self.passages[:k])


def passages(number: int, *, salt: int = 0, text: str = "Passage") -> tuple[Passage, ...]:
    """With scores as far apart as BM25's are, the best first."""
    chance = random.Random(salt)
    scores = sorted((chance.uniform(5, 30) for _ in range(number)), reverse=True)
    return tuple(Passage(f"p{n}", "", f"{text} {salt}/{n}", score) for n, score in enumerate(scores))


def answers(
    engine: FakeEngine,
    shelf: Shelf,
    *,
    number: int = 1,
    adapter: str | None = None,
    context_tokens: int = 8192,
    **knobs: Any,
) -> list[Answer]:
    """What so many tasks of one wave are answered."""
    asked = recipe(corpus="c", **{"retrieval": "sequence", **knobs})
    requests = [
        GenerationRequest(f"Task {each}. Response:", adapter, max_new_tokens=asked.response_max_new_tokens)
        for each in range(number)
    ]
    writer = PassageAnswers(asked, engine=engine, retriever=shelf, context_tokens=context_tokens)
    return writer.write([candidate(each) for each in range(number)], requests)


def prompts_of(found: Sequence[Passage], task: int = 0) -> list[str]:
    return [passage_prompt(passage.text, f"Task {task}. Response:") for passage in found]


def every_answer() -> Iterator[tuple[str, ...]]:
    return itertools.chain.from_iterable(itertools.product(WORDS, repeat=length) for length in range(1, LONGEST + 1))


def marginals(model: TableModel, found: Sequence[Passage], prompts: Sequence[str]) -> dict[tuple[str, ...], float]:
    """Every answer there is with Σ_z p(z) p(answer | z)."""
    pairs = list(zip(found, prompts, strict=True))
    return {
        words: sum(passage.weight * model.probability(prompt, words) for passage, prompt in pairs)
        for words in every_answer()
    }


def test_the_table_models_answers_are_a_distribution() -> None:
    """Else nothing below would be brute force."""
    assert math.isclose(sum(TableModel().probability("any", words) for words in every_answer()), 1.0)


def test_sequence_is_the_likeliest_of_the_passages_answers_by_brute_force() -> None:
    """Over a list of all answers with their marginal probabilities, of those that a passage led to the first."""
    model, differs = TableModel(sure=0.7), 0
    for salt in range(30):
        found = passages(4, salt=salt)
        prompts = prompts_of(found)
        marginal = marginals(model, weigh(found, temperature=1.0), prompts)
        own = {tuple(model.greedy(prompt)) for prompt in prompts}
        expected = max(own, key=marginal.__getitem__)
        [answer] = answers(model, Shelf(*found), retrieval_top_k=4)
        assert answer.text == " ".join(expected)
        assert {answer.text, *answer.samples} == {" ".join(words) for words in own}
        assert answer.prompt in prompts
        assert tuple(model.greedy(answer.prompt)) == expected
        differs += expected != tuple(model.greedy(prompts[0]))
    assert differs >= 5  # of 30, or the best passage alone would do


def test_token_takes_each_word_from_the_sum_over_all_answers() -> None:
    """The next word is the one with which most of the marginal probability of whole answers goes on."""
    model, differs = TableModel(sure=0.7), 0
    for salt in range(30):
        found = passages(3, salt=salt)
        prompts = prompts_of(found)
        marginal = marginals(model, weigh(found, temperature=1.0), prompts)
        [answer] = answers(model, Shelf(*found), retrieval="token")
        written = tuple(answer.text.split())
        for place in range(len(written) + 1):
            onward: dict[str | None, float] = dict.fromkeys((*WORDS, END), 0.0)
            for words, share in marginal.items():
                if words[:place] == written[:place]:
                    onward[words[place] if len(words) > place else END] += share
            assert _best(onward) == (written[place] if place < len(written) else END)
        differs += list(written) != model.greedy(prompts[0])
    assert differs >= 5


def test_weights_of_scores_far_apart_are_not_one_passage() -> None:
    """Raw gaps of BM25 would make top-5 the harmful top-1."""
    scores = (31.0, 22.0, 15.5, 11.0, 9.0)
    weighted = weigh([Passage(str(n), "", "", score) for n, score in enumerate(scores)], temperature=1.0)
    weights = [passage.weight for passage in weighted]
    assert math.exp(31.0) / sum(map(math.exp, scores)) > 0.999
    assert weights == sorted(weights, reverse=True)
    assert math.isclose(sum(weights), 1.0)
    assert 0.5 < weights[0] < 0.7
    assert min(weights) > 0.03
    assert [passage.score for passage in weighted] == list(scores)


@pytest.mark.parametrize("k", [2, 5, 10, 50])
def test_no_passage_of_several_weighs_nearly_all(k: int) -> None:
    others = [Passage("", "", "", 0.1) for _ in range(k - 1)]
    best = weigh([Passage("", "", "", 1000.0), *others], temperature=1.0)[0]
    assert best.weight < {2: 0.89, 5: 0.76, 10: 0.76, 50: 0.97}[k]


def test_weights_do_not_depend_on_the_scores_scale_but_on_the_temperature() -> None:
    def weights(scores: Sequence[float], temperature: float = 1.0) -> list[float]:
        found = weigh([Passage("", "", "", score) for score in scores], temperature=temperature)
        return [round(passage.weight, 12) for passage in found]

    assert weights([3.0, 2.0, 1.0]) == weights([31.0, 21.0, 11.0])
    assert weights([3.0, 2.0, 1.0], 0.2)[0] > 0.99
    assert max(weights([3.0, 2.0, 1.0], 50.0)) < 0.35
    assert weights([7.1, 7.1, 7.1, 7.1]) == [0.25] * 4
    assert weights([7.1, 7.1 + 1e-12]) == [0.5, 0.5]
    assert weights([4.2]) == [1.0]
    assert weights([]) == []


def test_a_row_records_its_passages_without_their_texts_and_the_entropy() -> None:
    found = passages(5)
    [answer] = answers(TableModel(), Shelf(*found))
    assert [passage.id for passage in answer.passages] == ["p0", "p1", "p2", "p3", "p4"]
    assert all(passage.text == "" for passage in answer.passages)
    assert [passage.score for passage in answer.passages] == [passage.score for passage in found]
    weights = [passage.weight for passage in answer.passages]
    [check] = retrieval_checks(answer)
    assert check.is_passed
    assert check.value == round(-sum(w * math.log(w) for w in weights), 4)
    assert 0.5 < check.value < math.log(5)
    even = replace(answer, passages=tuple(replace(passage, weight=0.2) for passage in answer.passages))
    assert [round(each.value or 0, 4) for each in retrieval_checks(even)] == [round(math.log(5), 4)]
    assert list(retrieval_checks(replace(answer, passages=()))) == []


def test_the_question_is_instruction_and_input_and_the_passage_stands_before_the_prompt() -> None:
    model, shelf = TableModel(), Shelf(Passage("p", "Steel", "Orders fell.", 3.0))
    answers(model, shelf, number=2)
    assert shelf.queries == ["Is the tone good or bad?\nNew text 0", "Is the tone good or bad?\nNew text 1"]
    for task, request in enumerate(model.asked):
        assert request.prompt.index("Steel\nOrders fell.") < request.prompt.index(f"Task {task}. Response:")
        assert request.prompt.endswith(f"\n\nTask {task}. Response:")


@pytest.mark.parametrize("form", ["sequence", "token"])
def test_an_adapter_writes_and_scores_its_own_answers(form: str) -> None:
    [answer] = answers(TableModel(), Shelf(*passages(2)), retrieval=form, adapter="e1")
    assert answer.generator == "e1"


@pytest.mark.parametrize("form", ["sequence", "token"])
def test_tasks_without_a_passage_are_answered_beside_the_others(form: str) -> None:
    """Where nothing is found the plain prompt is asked; the order of the wave stays."""

    class Sometimes(Shelf):
        def search(self, query: str, k: int) -> list[Passage]:
            return [] if query.endswith("1") else super().search(query, k)

    model = TableModel()
    written = answers(model, Sometimes(*passages(2)), number=3, retrieval=form)
    assert [len(answer.passages) for answer in written] == [2, 0, 2]
    assert written[1].prompt == "Task 1. Response:"
    assert written[1].text == " ".join(model.greedy("Task 1. Response:"))
    assert "Task 0." in written[0].prompt
    assert "Task 2." in written[2].prompt


def test_passages_that_do_not_fit_are_cut_alike_and_then_left_out() -> None:
    """The fake engine reads a word as a token; it refuses what does not fit, so nothing here may."""
    long = tuple(Passage(f"p{n}", "", " ".join(["word"] * 500), float(n)) for n in range(3))
    knobs: dict[str, Any] = {"response_max_new_tokens": 64}
    for form in ("sequence", "token"):
        for context_tokens in (40, 90, 120, 140, 200, 400, 2000):
            engine = FakeEngine(context_tokens=max(context_tokens, 80))
            [answer] = answers(engine, Shelf(*long), context_tokens=context_tokens, retrieval=form, **knobs)
            room = context_tokens - 64
            if answer.passages:
                assert engine.count(answer.prompt) <= room
            assert len(answer.passages) == (3 if context_tokens >= 120 else 0), (form, context_tokens)
            assert ("word" in answer.prompt) == bool(answer.passages)


def test_answers_that_cannot_be_learned_from_do_not_win() -> None:
    """An empty or a cut answer would be dropped later: it must not push out a whole one."""

    found = passages(3)
    marginal = marginals(TableModel(), weigh(found, temperature=1.0), prompts_of(found))
    likeliest, whole = max(marginal, key=marginal.__getitem__), TableModel().greedy(prompts_of(found)[2])
    assert list(likeliest) != whole

    class Careless(TableModel):
        def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
            empty, cut, last = super().generate(requests, **options)
            return [replace(empty, text=" "), replace(cut, text=" ".join(likeliest), finish_reason="length"), last]

    [answer] = answers(Careless(), Shelf(*found))
    assert (answer.finish_reason, answer.text) == ("stop", " ".join(whole))

    class Hopeless(TableModel):
        def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
            return [replace(each, finish_reason="length") for each in super().generate(requests, **options)]

    [answer] = answers(Hopeless(), Shelf(*passages(3)))
    assert answer.finish_reason == "length"


def test_the_same_wave_gives_the_same_answers() -> None:
    for form in ("sequence", "token"):
        first, second = (answers(FakeEngine(), Shelf(*passages(5)), number=8, retrieval=form) for _ in range(2))
        assert first == second


def _best(table: dict[str | None, float]) -> str | None:
    return max(table, key=table.__getitem__)


def _completion(text: str, adapter: str | None) -> Completion:
    return Completion(text, "stop", 1, len(text.split()), adapter)
