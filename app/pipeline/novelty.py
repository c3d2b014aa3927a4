"""Is a text new? ROUGE-L against everything kept so far, exactly, with a bound that spares almost every comparison.

Two texts cannot have a longer common subsequence than they have common words, and those are counted for all kept texts
at once from the words' postings. The commonest words have the longest postings and tell least, so they are left out of
the count: a text that misses so many common words among the others that even all of those left out would not make it
alike is never looked at again. What remains is counted whole, and only what still may be alike is compared.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.core.texts import evened
from app.pipeline.rouge import Words, ascii_words, common_length, f_measure, masks_of

Ints = npt.NDArray[np.integer[Any]]

_SLACK = 1e-9  # the bound and rouge-score round differently
_COUNT_SLACK = 1e-6  # the same, of a number of words
_NEAREST = 16  # texts whose common words are counted whole where nothing may be alike
_COUNTED = 0.4  # of the fewest common words of two texts that are alike, the share that is never left out of the count


@dataclass(frozen=True, slots=True)
class Likeness:
    """What a text was compared with: whether it is new, and the most alike of those that were looked at.

    ``score``: its ROUGE-L F, 0 to 1; ``name``: what it was added as. No kept text at all: 0 and "".
    """

    is_new: bool
    score: float
    name: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """A text that is judged: the word numbers it shares with kept texts, and its postings, the longest first."""

    num_words: int
    masks: dict[Any, int]
    postings: list[Ints]


class NoveltyFilter:
    """Keeps texts and refuses those too like one of them (Self-Instruct's rule: ROUGE-L F above 0.7).

    Its answer is what comparing with every kept text by rouge-score would give. Memory: about eight bytes a word kept.
    """

    def __init__(self, threshold: float, *, words: Words = ascii_words) -> None:
        """``threshold``: ROUGE-L F above which a text is a near-duplicate, 0 to 1. The same text again is never new."""
        self._threshold, self._words = threshold, words
        self._numbers: dict[str, int] = {}  # of the words, as they were met
        self._postings: dict[int, array[int]] = {}  # numbered word → positions of the kept texts that have it
        self._kept, self._starts = array("i"), array("q", [0])  # word numbers of all kept texts; where each begins
        self._lengths = array("i")
        self._names: list[str] = []
        self._same: dict[bytes, int] = {}  # digest of the plain text → position

    def __len__(self) -> int:
        return len(self._names)

    def add(self, text: str, name: str = "") -> None:
        """Count ``text`` among what new texts must differ from; ``name`` is what a likeness to it will be told by."""
        position = len(self._names)
        numbers = [self._numbers.setdefault(word, len(self._numbers)) for word in self._words(text)]
        for key in _numbered(numbers):
            posting = self._postings.get(key)
            if posting is None:
                posting = self._postings[key] = array("i")
            posting.append(position)
        self._kept.extend(numbers)
        self._starts.append(len(self._kept))
        self._lengths.append(len(numbers))
        self._names.append(name)
        self._same.setdefault(_digest(text), position)

    def is_new(self, text: str) -> bool:
        """True if ``text`` is no kept text again and has a ROUGE-L F above the threshold with none."""
        return self.judge(text).is_new

    def judge(self, text: str) -> Likeness:
        """Whether ``text`` is new, and what it is most like of all that had to be compared (one text at least)."""
        if (same := self._same.get(_digest(text))) is not None:
            return Likeness(False, 1.0, self._names[same])
        asked = self._ask(text)
        nearest, most = -1, -1.0
        for position in self._suspects(asked):
            if (score := self._score(asked, position)) > most:
                nearest, most = position, score
            if score > self._threshold:
                break
        return Likeness(most <= self._threshold, max(most, 0.0), self._names[nearest] if nearest >= 0 else "")

    def possible_duplicates(self, text: str) -> Iterator[int]:
        """Positions of the kept texts that must be compared, the likeliest first."""
        return self._suspects(self._ask(text), least_one=False)

    def _ask(self, text: str) -> _Asked:
        words = self._words(text)
        numbers = [self._numbers.get(word, -1) for word in words]
        found = [posting for key in _numbered(numbers) if (posting := self._postings.get(key)) is not None]
        found.sort(key=len, reverse=True)
        masks = masks_of(numbers)
        masks.pop(-1, None)
        return _Asked(len(words), masks, [np.frombuffer(posting, dtype=np.int32) for posting in found])

    def _suspects(self, asked: _Asked, *, least_one: bool = True) -> Iterator[int]:
        """``least_one``: also where nothing can be a duplicate, the text that shares the most words."""
        if not asked.postings:
            return iter(())
        num_left_out = self._num_left_out(asked)
        counted, left_out = asked.postings[num_left_out:], asked.postings[:num_left_out]
        common = np.bincount(np.concatenate(counted), minlength=len(self._names))
        both = np.frombuffer(self._lengths, dtype=np.int32) + asked.num_words  # words of the two texts together
        (positions,) = np.nonzero(common + num_left_out > both * (self._threshold / 2) - _COUNT_SLACK)
        if least_one and not positions.size:
            most = min(_NEAREST, len(both))
            positions = np.sort(np.argpartition(common / both, -most)[-most:])
        common = common[positions]
        for posting in left_out:
            places = np.searchsorted(posting, positions)
            common += posting[np.minimum(places, len(posting) - 1)] == positions
        bound = 2 * common / both[positions]
        order = np.argsort(-bound, kind="stable")
        num_alike = int((bound > self._threshold - _SLACK).sum())
        return iter(positions[order[: max(num_alike, int(least_one))]].tolist())

    def _num_left_out(self, asked: _Asked) -> int:
        """How many of the longest postings need not be counted: fewer than any duplicate must have in common.

        2c / (n + b) > t and b ≥ c give c > t n / (2 - t).
        """
        fewest = math.floor(self._threshold * asked.num_words / (2 - self._threshold) - _SLACK) + 1
        return max(0, min(fewest - 1, int(fewest * (1 - _COUNTED)), len(asked.postings) - 1))

    def _score(self, asked: _Asked, position: int) -> float:
        kept = self._kept[self._starts[position] : self._starts[position + 1]]
        return f_measure(common_length(asked.masks, asked.num_words, kept), len(kept), asked.num_words)


def _numbered(numbers: list[int]) -> Iterator[int]:
    """Each word with which occurrence of it this is: so two texts share as many as their bags of words do."""
    seen: dict[int, int] = {}
    for number in numbers:
        count = seen.get(number, 0)
        seen[number] = count + 1
        yield count << 32 | number


def _digest(text: str) -> bytes:
    return hashlib.blake2b(evened(text).encode(errors="surrogatepass"), digest_size=12).digest()
