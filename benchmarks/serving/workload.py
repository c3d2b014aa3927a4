"""What is asked: random prompts of a known number of tokens, for the base, one expert, or many side by side.

The words are ones that every tokenizer of this base reads as one token each, so all servers see prompts of the same
length. A workload is a function of its seed; no two have a prompt in common, so no prefix cache helps.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

BASE = "base"
EXPERTS = tuple(f"d{number}" for number in range(32))
MIXES = {
    "base": (BASE,),
    "one": EXPERTS[:1],
    "mixed": EXPERTS[:4],
    "many": EXPERTS,
}
SHORTEST, LONGEST = 16, 256  # tokens, where lengths are drawn


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt; ``model`` is BASE or an expert. Exactly ``max_tokens`` are to be written, greedily."""

    model: str
    prompt: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Point:
    """One cell of the table: who is asked, how many at once; ``drawn``: lengths are not all equal."""

    mix: str
    concurrency: int
    drawn: bool = False

    @property
    def name(self) -> str:
        return f"{self.mix}{'-drawn' if self.drawn else ''}@{self.concurrency}"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is asked in a measurement; lengths in tokens."""

    requests: int = 64
    prompt_tokens: int = 100
    new_tokens: int = 64
    longest: int = LONGEST


@dataclass(frozen=True, slots=True)
class Workload:
    """The requests of one measurement of one point."""

    point: Point
    requests: tuple[Request, ...]


class Words:
    """Words that are one token each after a blank."""

    def __init__(self, model: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        vocabulary = self._tokenizer.get_vocab()
        self._words = sorted(token[1:] for token in vocabulary if re.fullmatch("[Ġ▁][a-z]{3,}", token))

    def prompt(self, num_tokens: int, *, chance: random.Random) -> str:
        """A text of exactly so many tokens (a token of beginning, where a server adds one, not counted)."""
        text = " " + " ".join(chance.choices(self._words, k=num_tokens))
        if (found := self.count(text)) != num_tokens:
            raise ValueError(f"{num_tokens} words make {found} tokens: this base's tokenizer is not a byte-level BPE")
        return text

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


def make_workload(point: Point, *, words: Words, sizes: Sizes, seed: str) -> Workload:
    """The same for the same seed; ``seed`` names the run and the repeat."""
    chance = random.Random(f"{seed} {point.name}")
    models = MIXES[point.mix]

    def length(usual: int) -> int:
        return chance.randint(SHORTEST, sizes.longest) if point.drawn else usual

    return Workload(
        point,
        tuple(
            Request(
                models[number % len(models)],
                words.prompt(length(sizes.prompt_tokens), chance=chance),
                length(sizes.new_tokens),
            )
            for number in range(sizes.requests)
        ),
    )
