"""Answers → scores: token F1 and ROUGE-L of base and expert, and how sure their difference is (paper App. A).

``f1`` is SQuAD's token F1 on the whole reference (the headline); ``f1_box`` follows the BoX convention that the paper
cites: the reference is split at ", " and the best piece counts; ``rougeL`` is rouge-score's F with stemming.
"""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

from rouge_score.rouge_scorer import RougeScorer

from app.core.ports import TextGenerator
from app.core.recipe import Recipe
from app.core.records import MEAN, Answer, Comparison, GenerationRequest, Judged, Seed
from app.pipeline.template import Template

METRICS = ("f1", "f1_box", "rougeL")
NUM_RESAMPLES = 2000
ITEMS_PER_WAVE = 32  # see instructions.PROMPTS_PER_WAVE

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def write_answers(
    items: Sequence[Seed], *, adapter: str, template: Template, recipe: Recipe, start: int, generator: TextGenerator
) -> Iterator[list[tuple[Answer, Answer]]]:
    """Waves of (base's, expert's) answers to the items from ``start`` on.

    Both are asked through the same template, greedily, with the same token limit and stop texts, in the same batch;
    so a difference is the adapter's alone.
    """
    for first in range(start, len(items), ITEMS_PER_WAVE):
        prompts = [template.render(item.instruction, item.input) for item in items[first : first + ITEMS_PER_WAVE]]
        lines = [[_request(prompt, line, recipe) for prompt in prompts] for line in (None, adapter)]
        completions = generator.generate([*lines[0], *lines[1]])
        answers = [Answer.of(completion) for completion in completions]
        yield list(zip(answers[: len(prompts)], answers[len(prompts) :], strict=True))


def _request(prompt: str, adapter: str | None, recipe: Recipe) -> GenerationRequest:
    return GenerationRequest(
        prompt, adapter=adapter, max_new_tokens=recipe.evaluation_max_new_tokens, stop=recipe.evaluation_stop
    )


def judge(id: str, task: str, output: str, *, base_text: str, expert_text: str) -> Judged:
    """Score both answers to one item."""
    return Judged(
        id, task, output, base_text, expert_text, score_answer(base_text, output), score_answer(expert_text, output)
    )


def score_answer(answer: str, reference: str) -> dict[str, float]:
    """Every metric of one answer, 0 to 100."""
    return {
        "f1": 100 * token_f1(answer, reference),
        "f1_box": 100 * max(token_f1(answer, piece) for piece in _pieces(reference)),
        "rougeL": 100 * rouge_l(answer, reference),
    }


def token_f1(answer: str, reference: str) -> float:
    """Bag-of-tokens F1 after SQuAD's normalisation, 0 to 1; two empty texts agree."""
    ours, theirs = _normalised(answer), _normalised(reference)
    if not ours or not theirs:
        return float(ours == theirs)
    common = (Counter(ours) & Counter(theirs)).total()
    return 2 * common / (len(ours) + len(theirs))


def _pieces(reference: str) -> list[str]:
    """A reference as BoX reads it: split at ", ". Pieces without a token, which silence would match, do not count."""
    return [piece for piece in reference.split(", ") if _normalised(piece)] or [reference]


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F with stemming, 0 to 1."""
    return float(_scorer().score(reference, answer)["rougeL"].fmeasure)


def compare(items: Sequence[Judged], *, seed: int) -> list[Comparison]:
    """Each task and the plain mean over tasks (``MEAN``), with paired bootstrap intervals of the difference."""
    tasks: dict[str, list[Judged]] = {}
    for item in items:
        name = f"{MEAN} (task)" if item.task == MEAN else item.task  # a user's task may be called like our row
        tasks.setdefault(name, []).append(item)
    return [row for metric in METRICS for row in _compare_metric(tasks, metric, seed)]


def _compare_metric(tasks: dict[str, list[Judged]], metric: str, seed: int) -> list[Comparison]:
    chance = random.Random(f"{seed}/bootstrap")
    rows, draws = [], []
    for task, items in tasks.items():
        base, expert = [item.base[metric] for item in items], [item.expert[metric] for item in items]
        draws.append(_resampled([e - b for b, e in zip(base, expert, strict=True)], chance))
        rows.append(_comparison(task, metric, len(items), _mean(base), _mean(expert), draws[-1]))
    over = _mean([row.base for row in rows]), _mean([row.expert for row in rows])
    mean_draws = [_mean(draw) for draw in zip(*draws, strict=True)]
    return [*rows, _comparison(MEAN, metric, sum(row.n for row in rows), *over, mean_draws)]


def _comparison(task: str, metric: str, n: int, base: float, expert: float, draws: Sequence[float]) -> Comparison:
    """``draws`` of the difference; their middle 95 % are its interval."""
    ordered = sorted(draws)
    low, high = ordered[int(0.025 * NUM_RESAMPLES)], ordered[int(0.975 * NUM_RESAMPLES) - 1]
    return Comparison(task, metric, n, base, expert, expert - base, low, high)


def _resampled(gains: Sequence[float], chance: random.Random) -> list[float]:
    """Means of one task's gains when its items are drawn again with replacement."""
    return [_mean(chance.choices(gains, k=len(gains))) for _ in range(NUM_RESAMPLES)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _normalised(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


@cache
def _scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=True)
