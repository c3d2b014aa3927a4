"""How right an answer is: token F1, its BoX form and ROUGE-L, 0 to 100 (paper App. A).

``f1`` is SQuAD's token F1 on the whole gold answer (the headline); ``f1_box`` follows the BoX convention that the paper
cites: the gold answer is split at ", " and the best piece counts; ``rougeL`` is rouge-score's F with stemming. Where an
item has several gold answers the best of them counts, for each metric by itself.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

from app.core.records import Seed

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

METRICS = ("f1", "f1_box", "rougeL")

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def score_item(answer: str, item: Seed) -> dict[str, float]:
    """Every metric of an answer to an item."""
    return score_answer(answer, item.output, *item.references)


def score_answer(answer: str, *golds: str) -> dict[str, float]:
    """Every metric of an answer against the best of ``golds``, 0 to 100."""
    pieces = [piece for gold in golds for piece in _pieces(gold)]
    return {
        "f1": 100 * max(token_f1(answer, gold) for gold in golds),
        "f1_box": 100 * max(token_f1(answer, piece) for piece in pieces),
        "rougeL": 100 * max(rouge_l(answer, gold) for gold in golds),
    }


def token_f1(answer: str, gold: str) -> float:
    """Bag-of-tokens F1 after SQuAD's normalisation, 0 to 1; two empty texts agree."""
    ours, theirs = _normalised(answer), _normalised(gold)
    if not ours or not theirs:
        return float(ours == theirs)
    common = (Counter(ours) & Counter(theirs)).total()
    return 2 * common / (len(ours) + len(theirs))


def rouge_l(answer: str, gold: str) -> float:
    """ROUGE-L F with stemming, 0 to 1."""
    return float(_scorer().score(gold, answer)["rougeL"].fmeasure)


def _pieces(gold: str) -> list[str]:
    """A gold answer as BoX reads it: split at ", ". Pieces without a token, which silence would match, do not count."""
    return [piece for piece in gold.split(", ") if _normalised(piece)] or [gold]


def _normalised(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


@cache
def _scorer() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer  # brings nltk, which takes half a second

    return RougeScorer(["rougeL"], use_stemmer=True)
