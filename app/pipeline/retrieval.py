"""Answers written with passages of a corpus beside the task, marginalized over the passages (App. D, Table 2).

p(y | x) = Σ_z p(z | x) p(y | x, z): z is a passage, x the task, y a whole answer. The paper names neither formula nor
p(z | x); ours are here. How passages are found is the retriever's business.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import Protocol

from app.core.ports import MixtureDecoder, TextGenerator, TextScorer, Tokens
from app.core.recipe import Recipe
from app.core.records import (
    Answer,
    Candidate,
    Check,
    Completion,
    GenerationRequest,
    MixtureCompletion,
    MixtureRequest,
    Passage,
    Score,
    ScoreRequest,
)
from app.pipeline.bench import Bench, Retriever

ENTROPY_CHECK = "retrieval_entropy"
LEAST_PASSAGE_TOKENS = 16  # a shorter piece of a passage tells nothing
_SPARE_TOKENS = 16  # for what texts gain in tokens when they are joined, and for the end of sequence


class Reader(TextGenerator, TextScorer, MixtureDecoder, Tokens, Protocol):
    """What an engine must be able to do."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One task with what was found for it: a prompt and a weight, p(z | x), for each passage, the heaviest first."""

    request: GenerationRequest  # without a passage
    passages: tuple[Passage, ...] = ()
    prompts: tuple[str, ...] = ()

    def told(self, answer: Answer) -> Answer:
        """The answer with the passages it was written from; their texts are the corpus's."""
        return replace(answer, passages=tuple(replace(passage, text="") for passage in self.passages))


class PassageAnswers:
    """Answers tasks in the recipe's form of retrieval."""

    def __init__(self, recipe: Recipe, *, engine: Reader, retriever: Retriever, context_tokens: int) -> None:
        """``context_tokens``: what the base can read, prompt and answer together."""
        self._recipe, self._engine, self._retriever = recipe, engine, retriever
        self._most_tokens = recipe.response_max_new_tokens + _SPARE_TOKENS  # of an answer, with what goes with it
        self._room = context_tokens - self._most_tokens

    @classmethod
    def of(cls, bench: Bench) -> PassageAnswers | None:
        """None if the recipe retrieves nothing."""
        if bench.recipe.retrieval == "none" or (retriever := bench.retriever) is None:
            return None
        context_tokens = bench.engine.wait_ready().context_tokens
        return cls(bench.recipe, engine=bench.engine, retriever=retriever, context_tokens=context_tokens)

    def write(self, candidates: Sequence[Candidate], requests: Sequence[GenerationRequest]) -> list[Answer]:
        """One answer a candidate; ``requests`` are what each would be asked without passages.

        A task for which nothing is found, or that leaves a passage no room, is answered without.
        """
        readings = [self._read(*pair) for pair in zip(candidates, requests, strict=True)]
        alone = iter(self._write_alone([reading.request for reading in readings if not reading.passages]))
        found = [reading for reading in readings if reading.passages]
        beside = iter(self._write_whole(found) if self._recipe.retrieval == "sequence" else self._write_mixed(found))
        return [next(beside) if reading.passages else next(alone) for reading in readings]

    def _read(self, candidate: Candidate, request: GenerationRequest) -> Reading:
        """Find passages and make the prompts. All passages are cut to the same length: what the context leaves."""
        room = self._room - self._engine.count(passage_prompt("", request.prompt))
        if room < LEAST_PASSAGE_TOKENS:
            return Reading(request)
        query = f"{candidate.instruction}\n{candidate.input}"
        passages = weigh(
            self._retriever.search(query, self._recipe.retrieval_top_k), temperature=self._recipe.retrieval_temperature
        )
        texts = [self._engine.clip("\n".join(filter(None, (each.title, each.text))), room) for each in passages]
        return Reading(request, passages, tuple(passage_prompt(text, request.prompt) for text in texts))

    def _write_alone(self, requests: Sequence[GenerationRequest]) -> list[Answer]:
        completions = self._engine.generate(requests) if requests else []
        return [Answer.of(done, prompt=asked.prompt) for asked, done in zip(requests, completions, strict=True)]

    def _write_whole(self, readings: Sequence[Reading]) -> list[Answer]:
        """Of each passage's own answer the one that is likeliest under all passages (the form ``sequence``)."""
        asked = [replace(reading.request, prompt=prompt) for reading in readings for prompt in reading.prompts]
        completions = iter(self._engine.generate(asked) if asked else [])
        written = [[next(completions) for _ in reading.prompts] for reading in readings]
        options = [self._options(each) for each in written]
        scores = iter(self._score_all(readings, options))
        answers = []
        for reading, own, texts in zip(readings, written, options, strict=True):
            chances = {text: _mixed(reading.passages, [next(scores) for _ in reading.prompts]) for text in texts}
            best = max(chances, key=chances.__getitem__, default=own[0].text)  # of equals the first
            place = next(number for number, done in enumerate(own) if done.text == best)
            answer = Answer.of(own[place], prompt=reading.prompts[place])
            others = tuple(dict.fromkeys(done.text for done in own if done.text != best))
            generators = (answer.generator,) * len(others)  # one writer reads all passages
            answers.append(reading.told(replace(answer, samples=others, sample_generators=generators)))
        return answers

    def _options(self, completions: Sequence[Completion]) -> list[str]:
        """The different texts to choose from: those that ended by themselves, and can be scored. May be none."""
        texts = (done.text for done in completions if done.finish_reason != "length" and done.text.strip())
        return [text for text in dict.fromkeys(texts) if self._engine.count(text) < self._most_tokens]

    def _score_all(self, readings: Sequence[Reading], options: Sequence[Sequence[str]]) -> list[Score]:
        """By task, text and passage."""
        requests = [
            ScoreRequest(prompt, text, adapter=reading.request.adapter, with_end=True)
            for reading, texts in zip(readings, options, strict=True)
            for text in texts
            for prompt in reading.prompts
        ]
        return self._engine.score(requests) if requests else []

    def _write_mixed(self, readings: Sequence[Reading]) -> list[Answer]:
        """Each token from the mixture of all passages (the form ``token``); the prompt told is the heaviest one's."""
        requests = [
            MixtureRequest(
                reading.prompts,
                tuple(passage.weight for passage in reading.passages),
                adapter=reading.request.adapter,
                max_new_tokens=reading.request.max_new_tokens,
                stop=reading.request.stop,
            )
            for reading in readings
        ]
        completions = self._engine.generate_mixture(requests) if requests else []
        return [reading.told(_answer(reading, done)) for reading, done in zip(readings, completions, strict=True)]


def passage_prompt(passage: str, prompt: str) -> str:
    """The expert's prompt with a passage before it."""
    return f"A passage that may help, or may not:\n{passage}\n\n{prompt}"


def weigh(passages: Sequence[Passage], *, temperature: float) -> tuple[Passage, ...]:
    """p(z | x) of the passages found: softmax of their z-scored BM25 scores over ``temperature``.

    Raw scores lie 5 to 10 apart, and their softmax would be the one best passage, which harms (Table 2, top-1). A
    z-score among k is at most √(k-1), so at temperature 1 no passage of five weighs above 0.76. Equal scores: equal.
    """
    scores = [passage.score for passage in passages]
    mean, spread = (fmean(scores), pstdev(scores)) if scores else (0.0, 0.0)
    is_flat = spread <= 1e-9 * max(1.0, abs(mean))
    logits = [0.0 if is_flat else (score - mean) / spread / temperature for score in scores]
    total = _log_sum_exp(logits)
    return tuple(
        replace(passage, weight=math.exp(logit - total)) for passage, logit in zip(passages, logits, strict=True)
    )


def retrieval_checks(answer: Answer) -> Iterator[Check]:
    """How evenly the passages of an answer weigh: the entropy of p(z | x), nats; 0: one alone, ln k: all alike."""
    if answer.passages:
        weights = [passage.weight for passage in answer.passages if passage.weight > 0]
        entropy = -sum(weight * math.log(weight) for weight in weights)
        yield Check(ENTROPY_CHECK, True, round(max(0.0, entropy), 4), f"{len(answer.passages)} passages")


def _answer(reading: Reading, done: MixtureCompletion) -> Answer:
    generator = done.adapter or "base"
    return Answer(done.text, done.finish_reason, done.completion_tokens, generator, reading.prompts[0])


def _mixed(passages: Sequence[Passage], scores: Sequence[Score]) -> float:
    """ln Σ_z p(z | x) p(y | x, z)."""
    return _log_sum_exp(
        [
            math.log(passage.weight) + score.log_probability
            for passage, score in zip(passages, scores, strict=True)
            if passage.weight > 0
        ]
    )


def _log_sum_exp(values: Sequence[float]) -> float:
    highest = max(values, default=-math.inf)
    if highest == -math.inf:
        return highest
    return highest + math.log(sum(math.exp(value - highest) for value in values))
