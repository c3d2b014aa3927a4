"""Whether answers stay the same when others are asked in the same batch, and whether each expert answers as itself.

Random experts write differently from the base and from each other, so an answer that begins as another's was computed
with the wrong adapter. What only drifts apart after a common beginning is rounding: in less exact dtypes sums depend
on the batch.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from benchmarks.serving.load import Sample
from benchmarks.serving.measure import failure
from benchmarks.serving.target import Target
from benchmarks.serving.workload import MIXES, Request, Words

PROMPTS = (
    "Question: Why does the price of a bond fall when interest rates rise?\nAnswer:",
    "Once upon a time, in a village at the edge of the forest, there lived",
)
NEW_TOKENS = 16
MODELS = ("base", *MIXES["mixed"])
CROWD = 32

Key = tuple[str, str]  # model, prompt


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many of ``asked`` answers were the same, drifted, or were another model's (or failed)."""

    asked: int
    same: int
    wrong: int
    example: str | None  # of something wrong

    @property
    def drifted(self) -> int:
        return self.asked - self.same - self.wrong


def ask_alone(target: Target) -> dict[Key, str]:
    """Every model on every prompt, one at a time."""
    requests = _requests()
    return _texts(requests, target.ask(requests, concurrency=1))


def ask_in_crowd(target: Target, *, words: Words, seed: str) -> dict[Key, str]:
    """The same all at once, among random requests to the same models."""
    chance = random.Random(seed)
    requests = _requests()
    crowd = [
        Request(chance.choice(MODELS), words.prompt(100, chance=chance), NEW_TOKENS)
        for _ in range(CROWD - len(requests))
    ]
    everyone = [*requests, *crowd]
    chance.shuffle(everyone)
    answers = _texts(everyone, target.ask(everyone, concurrency=CROWD))
    return {(request.model, request.prompt): answers[request.model, request.prompt] for request in requests}


def compare(answers: Mapping[Key, str], reference: Mapping[Key, str]) -> Verdict:
    """An answer is wrong if another model's reference begins more like it than its own model's does."""
    same, wrong, example = 0, 0, None
    for (model, prompt), text in answers.items():
        own = reference[model, prompt]
        others = [reference[other, prompt] for other in MODELS if other != model]
        nearest = max(_common(text, other) for other in others)
        if text == own:
            same += 1
        elif not text or _common(text, own) <= nearest:
            wrong += 1
            example = example or f"{model} on {prompt[:30]!r} wrote {text[:60]!r}, not {own[:60]!r}"
    return Verdict(len(answers), same, wrong, example)


def _requests() -> list[Request]:
    return [Request(model, prompt, NEW_TOKENS) for prompt in PROMPTS for model in MODELS]


def _texts(requests: Sequence[Request], samples: Sequence[Sample]) -> dict[Key, str]:
    """Empty for a failure. A character cut in the middle is written in several ways: left out."""
    return {
        (request.model, request.prompt): ""
        if failure(sample, request.max_tokens)
        else sample.text.replace("\ufffd", "").strip()
        for request, sample in zip(requests, samples, strict=True)
    }


def _common(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
