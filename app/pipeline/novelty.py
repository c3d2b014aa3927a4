"""Is a text new? ROUGE-L against everything kept so far, exactly, with a cheap bound that spares most comparisons."""

from __future__ import annotations

from collections import Counter

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer


class NoveltyFilter:
    """Keeps texts; ``nearest`` tells how like a new one is to them (paper: Self-Instruct's rule, ROUGE-L F > 0.7)."""

    def __init__(self, threshold: float) -> None:
        """``threshold``: ROUGE-L F above which a text is a near-duplicate, 0 to 1."""
        self._threshold = threshold
        self._tokenizer = DefaultTokenizer(use_stemmer=False)
        self._scorer = RougeScorer(["rougeL"], use_stemmer=False)
        self._kept: list[tuple[str, Counter[str], int]] = []

    def add(self, text: str) -> None:
        """Count ``text`` among what new texts must differ from."""
        words = self._tokenizer.tokenize(text)
        self._kept.append((text, Counter(words), len(words)))

    def is_new(self, text: str) -> bool:
        """True if no kept text has a ROUGE-L F above the threshold with ``text``."""
        words = self._tokenizer.tokenize(text)
        counts = Counter(words)
        return not any(
            self._bound(counts, len(words), other, length) > self._threshold
            and self._score(kept, text) > self._threshold
            for kept, other, length in self._kept
        )

    @staticmethod
    def _bound(counts: Counter[str], length: int, other: Counter[str], other_length: int) -> float:
        """An upper bound of ROUGE-L F: a common subsequence is at most the common bag of words."""
        total = length + other_length
        if total == 0:
            return 1.0
        if 2 * min(length, other_length) / total == 0:
            return 0.0
        return 2 * (counts & other).total() / total

    def _score(self, kept: str, text: str) -> float:
        return float(self._scorer.score(kept, text)["rougeL"].fmeasure)
