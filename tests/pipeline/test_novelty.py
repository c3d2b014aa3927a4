"""The novelty filter says exactly what comparing everything with rouge-score says."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from rouge_score.rouge_scorer import RougeScorer

from app.pipeline.novelty import NoveltyFilter

SCORER = RougeScorer(["rougeL"], use_stemmer=False)
WORDS = ["the", "The", "firm", "sold", "7", "ships", "in", "May", "and", "grew", "fell,", "é", "(2024)"]


def score(kept: str, text: str) -> float:
    return float(SCORER.score(kept, text)["rougeL"].fmeasure)


def is_new(text: str, kept: Sequence[str], *, threshold: float = 0.7) -> bool:
    novelty = NoveltyFilter(threshold)
    for other in kept:
        novelty.add(other)
    return novelty.is_new(text)


def by_comparing_all(text: str, kept: Sequence[str], *, threshold: float) -> bool:
    is_same = any(" ".join(text.casefold().split()) == " ".join(other.casefold().split()) for other in kept)
    return not is_same and all(score(other, text) <= threshold for other in kept)


def test_the_bound_never_changes_the_answer() -> None:
    """Random texts and thresholds, those among them that two texts meet exactly: where rounding could tell."""
    chance = random.Random(0)
    answers = []
    for _ in range(600):
        texts = [" ".join(chance.choices(WORDS, k=chance.randint(0, 9))) for _ in range(chance.randint(1, 6))]
        text, kept = texts[0], texts[1:]
        exact = [score(other, text) for other in kept if 0 < score(other, text) < 1]
        threshold = chance.choice([0.3, 0.5, 0.7, 1.0, *exact])
        answers.append(is_new(text, kept, threshold=threshold))
        assert answers[-1] == by_comparing_all(text, kept, threshold=threshold)
    assert 100 < sum(answers) < 500


@pytest.mark.parametrize("length", range(1, 40))
def test_scores_about_the_threshold(length: int) -> None:
    """7 of 10 words in common, and the like: rouge-score and the bound round such numbers differently."""
    text = " ".join(f"a{number}" for number in range(length))
    for common in range(1, length):
        kept = " ".join([f"a{number}" for number in range(common)] + ["b"] * (length - common))
        for threshold in (score(kept, text), score(kept, text) - 1e-12, common / length):
            expected = by_comparing_all(text, [kept], threshold=threshold)
            assert is_new(text, [kept], threshold=threshold) == expected


def test_order_of_words_counts() -> None:
    assert is_new("ships sold firm the", ["the firm sold ships"])
    assert not is_new("the firm sold ships", ["the old firm sold ships"])


@pytest.mark.parametrize("text", ["Ann grew.", "ann  GREW.\n", "…", "Выручка выросла"])
def test_the_same_text_again_is_never_new(text: str) -> None:
    """Also without a word that rouge-score knows, and with a threshold that nothing exceeds."""
    kept = ["Ann grew.", "…", "Выручка выросла"]
    assert not is_new(text, kept, threshold=1.0)


def test_texts_without_known_words_are_new() -> None:
    assert is_new("— ! —", ["…", "Ann grew."])
    assert is_new("anything", [])
    assert is_new("", ["Ann grew."])


def test_most_texts_are_never_compared() -> None:
    """A pool of thousands must not cost millions of comparisons: only texts with enough common words are looked at."""
    chance = random.Random(0)
    vocabulary = [f"word{number}" for number in range(2000)]
    novelty = NoveltyFilter(0.7)
    texts = [" ".join(chance.choices(vocabulary, k=30)) for _ in range(2000)]
    for text in texts:
        novelty.add(text)
    assert all(len(list(novelty.possible_duplicates(text))) == 1 for text in texts[:200])
