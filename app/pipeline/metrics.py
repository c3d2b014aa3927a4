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
from app.core.records import Answer, Comparison, GenerationRequest, Judged, Seed
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
        "f1_box": 100 * max(token_f1(answer, piece) for piece in reference.split(", ")),
        "rougeL": 100 * rouge_l(answer, reference),
    }


def token_f1(answer: str, reference: str) -> float:
    """Bag-of-tokens F1 after SQuAD's normalisation, 0 to 1; two empty texts agree."""
    ours, theirs = _normalised(answer), _normalised(reference)
    if not ours or not theirs:
        return float(ours == theirs)
    common = (Counter(ours) & Counter(theirs)).total()
    return 2 * common / (len(ours) + len(theirs))


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F with stemming, 0 to 1."""
    return float(_scorer().score(reference, answer)["rougeL"].fmeasure)


def compare(items: Sequence[Judged], *, seed: int) -> list[Comparison]:
    """Each task and the plain mean over tasks ("mean"), with paired bootstrap intervals of the difference."""
    tasks: dict[str, list[Judged]] = {}
    for item in items:
        tasks.setdefault(item.task, []).append(item)
    return [row for metric in METRICS for row in _compare_metric(tasks, metric, seed)]


def _compare_metric(tasks: dict[str, list[Judged]], metric: str, seed: int) -> list[Comparison]:
    base = {task: [item.base[metric] for item in items] for task, items in tasks.items()}
    expert = {task: [item.expert[metric] for item in items] for task, items in tasks.items()}
    gains = {task: [e - b for b, e in zip(base[task], expert[task], strict=True)] for task in tasks}
    rows = []
    for task, items in tasks.items():
        low, high = _interval([gains[task]], seed)
        rows.append(_comparison(task, metric, len(items), _mean(base[task]), _mean(expert[task]), low, high))
    low, high = _interval(list(gains.values()), seed)
    n = sum(len(items) for items in tasks.values())
    over = [_mean([_mean(values) for values in line.values()]) for line in (base, expert)]
    return [*rows, _comparison("mean", metric, n, over[0], over[1], low, high)]


def _comparison(task: str, metric: str, n: int, base: float, expert: float, low: float, high: float) -> Comparison:
    return Comparison(task, metric, n, base, expert, expert - base, low, high)


def _interval(gains: Sequence[Sequence[float]], seed: int) -> tuple[float, float]:
    """The middle 95 % of the mean over tasks when each task's items are drawn again with replacement."""
    chance = random.Random(f"{seed}/bootstrap")
    draws = sorted(_mean([_mean(chance.choices(own, k=len(own))) for own in gains]) for _ in range(NUM_RESAMPLES))
    return draws[int(0.025 * NUM_RESAMPLES)], draws[int(0.975 * NUM_RESAMPLES) - 1]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _normalised(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


@cache
def _scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=True)
