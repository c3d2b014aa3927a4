"""The novelty filter says exactly what comparing everything with rouge-score says."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from app.pipeline.novelty import NoveltyFilter
from app.pipeline.rouge import any_words, ascii_words, common_length, f_measure, masks_of, words_for

SCORER = RougeScorer(["rougeL"], use_stemmer=False)
WORDS = ["the", "The", "firm", "sold", "7", "ships", "in", "May", "and", "grew", "fell,", "é", "(2024)"]


def score(kept: str, text: str) -> float:
    return float(SCORER.score(kept, text)["rougeL"].fmeasure)


def keeping(*kept: str, threshold: float = 0.7) -> NoveltyFilter:
    """A filter that holds these texts, each by its number."""
    novelty = NoveltyFilter(threshold)
    for number, text in enumerate(kept):
        novelty.add(text, str(number))
    return novelty


def is_new(text: str, kept: Sequence[str], *, threshold: float = 0.7) -> bool:
    return keeping(*kept, threshold=threshold).is_new(text)


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


def test_on_real_texts_it_answers_as_rouge_score_does_pair_by_pair() -> None:
    """Texts of the bundled examples with some words changed, so that many pairs lie about the threshold."""
    chance = random.Random(1)
    rows = [json.loads(line) for line in Path("examples/finance/seeds.jsonl").read_text().splitlines()][::4]
    kept = [f"{row['instruction']}\n{row['input']}" for row in rows]
    novelty, answers = keeping(*kept), []
    for text in kept:
        share = chance.uniform(0.1, 0.6)
        changed = " ".join(chance.choice(WORDS) if chance.random() < share else word for word in text.split())
        found = novelty.judge(changed)
        assert found.is_new == by_comparing_all(changed, kept, threshold=0.7)
        assert found.score == score(kept[int(found.name)], changed)
        answers.append(found.is_new)
    assert 3 < sum(answers) < len(answers) - 3


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


def test_what_a_text_is_like_is_told() -> None:
    """Of a new text too: how near it came to what shares the most words with it."""
    novelty = keeping("Ann Ltd sold seven ships", "Bob Ltd made a loss", "quite different")
    near, far = novelty.judge("Ann Ltd sold eight ships"), novelty.judge("Cid Ltd made a profit of seven")
    assert (near.is_new, near.name, round(near.score, 6)) == (False, "0", 0.8)
    assert (far.is_new, far.name, far.score) == (
        True,
        "1",
        score("Bob Ltd made a loss", "Cid Ltd made a profit of seven"),
    )
    assert keeping().judge("anything").score == 0.0


def test_most_texts_are_never_compared() -> None:
    """A pool of thousands must not cost millions of comparisons: only texts with enough common words are looked at."""
    chance = random.Random(0)
    vocabulary = [f"word{number}" for number in range(2000)]
    texts = [" ".join(chance.choices(vocabulary, k=30)) for _ in range(2000)]
    novelty = keeping(*texts)
    assert all(list(novelty.possible_duplicates(text)) == [place] for place, text in enumerate(texts[:200]))


def test_words_are_those_of_rouge_score() -> None:
    tokenize = DefaultTokenizer(use_stemmer=False).tokenize
    for text in ("Über 3.5% in Q2, don't", "", " …", "a_b İI", "Ⅷ x²", "naïve-Bayes"):
        assert ascii_words(text) == tokenize(text)


def test_the_common_length_is_that_of_the_usual_table() -> None:
    chance = random.Random(3)
    for _ in range(300):
        one, other = ([chance.randrange(6) for _ in range(chance.randint(0, 90))] for _ in range(2))
        row = [0] * (len(other) + 1)
        for word in one:
            before = row[:]
            for place, met in enumerate(other):
                row[place + 1] = before[place] + 1 if word == met else max(before[place + 1], row[place])
        assert common_length(masks_of(one), len(one), other) == row[-1]
    assert f_measure(0, 0, 0) == 0.0


def test_other_languages_are_compared_by_their_own_words() -> None:
    """By a-z alone a Russian text has no words, so near-copies of it would all be new."""
    assert words_for("English") is ascii_words
    assert words_for("Russian") is any_words
    novelty = NoveltyFilter(0.7, words=any_words)
    novelty.add("Выручка компании выросла на шесть процентов")
    assert not novelty.is_new("Выручка компании выросла на семь процентов")
    assert any_words("公司收入 grew") == ["公", "司", "收", "入", "grew"]
