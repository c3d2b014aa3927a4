"""Is a text new? ROUGE-L against everything kept so far, exactly, with a bound that spares almost every comparison."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

NumberedWord = tuple[str, int]

_SLACK = 1e-9  # the bound and rouge-score round differently


class NoveltyFilter:
    """Keeps texts and refuses those too like one of them (Self-Instruct's rule: ROUGE-L F above 0.7).

    Two texts cannot have a longer common subsequence than they have common words, and those are counted for all kept
    texts at once from a word's postings. Only texts that share enough words are compared. Words are rouge-score's:
    runs of a-z and 0-9 in the lower-cased text.
    """

    def __init__(self, threshold: float) -> None:
        """``threshold``: ROUGE-L F above which a text is a near-duplicate, 0 to 1. The same text again is never new."""
        self._threshold = threshold
        self._tokenizer = DefaultTokenizer(use_stemmer=False)
        self._scorer = RougeScorer(["rougeL"], use_stemmer=False)
        self._same: set[str] = set()
        self._kept: list[tuple[str, int]] = []  # text, number of words
        self._postings: dict[NumberedWord, list[int]] = defaultdict(list)  # positions in _kept

    def add(self, text: str) -> None:
        """Count ``text`` among what new texts must differ from."""
        words = self._numbered_words(text)
        for word in words:
            self._postings[word].append(len(self._kept))
        self._kept.append((text, len(words)))
        self._same.add(_plain(text))

    def is_new(self, text: str) -> bool:
        """True if ``text`` is no kept text again and has a ROUGE-L F above the threshold with none."""
        if _plain(text) in self._same:
            return False
        return not any(self._score(kept, text) > self._threshold for kept in self.possible_duplicates(text))

    def possible_duplicates(self, text: str) -> Iterator[str]:
        """Kept texts with enough words in common to be near-duplicates."""
        words = self._numbered_words(text)
        common = Counter(chain.from_iterable(self._postings.get(word, ()) for word in words))
        for position, num_common in common.items():
            kept, length = self._kept[position]
            if 2 * num_common / (len(words) + length) > self._threshold - _SLACK:
                yield kept

    def _numbered_words(self, text: str) -> list[NumberedWord]:
        """Each word with which occurrence of it this is: so two texts share as many as their bags of words do."""
        seen: Counter[str] = Counter()
        numbered = []
        for word in self._tokenizer.tokenize(text):
            seen[word] += 1
            numbered.append((word, seen[word]))
        return numbered

    def _score(self, kept: str, text: str) -> float:
        return float(self._scorer.score(kept, text)["rougeL"].fmeasure)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
