"""Answers → scores: token F1 and ROUGE-L of base and expert, and how sure their difference is (paper App. A).

``f1`` is SQuAD's token F1 on the whole reference (the headline); ``f1_box`` follows the BoX convention that the paper
cites: the reference is split at ", " and the best piece counts; ``rougeL`` is rouge-score's F with stemming.
"""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import cache

from rouge_score.rouge_scorer import RougeScorer

from app.core.recipe import Recipe
from app.core.records import MEAN, Answer, Comparison, GenerationRequest, Judged, Line, Seed
from app.pipeline.bench import ROWS, WAVE, Bench
from app.pipeline.rows import from_row, to_row
from app.pipeline.template import ALPACA

METRICS = ("f1", "f1_box", "rougeL")
NUM_RESAMPLES = 2000
ANSWERS, COMPARISONS = "answers.jsonl", "comparisons.jsonl"

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def make_metrics(bench: Bench) -> None:
    """Every line answers the evaluation items through the engine that serves, and is scored."""
    expert, recipe, items = bench.expert(), bench.recipe, bench.split.evaluation
    bench.engine.attach(expert.id, expert.folder)
    pairs = [(from_row(Answer, row["base"]), from_row(Answer, row["expert"])) for row in bench.kept(ANSWERS, unit=WAVE)]
    bench.progress(len(pairs), len(items))
    for first in range(len(pairs), len(items), WAVE):
        prompts = [ALPACA.render(item.instruction, item.input) for item in items[first : first + WAVE]]
        lines = [[request_answer(prompt, line, recipe) for prompt in prompts] for line in (None, expert.id)]
        answers = [Answer.of(completion) for completion in bench.engine.generate([*lines[0], *lines[1]])]
        wave = list(zip(answers[: len(prompts)], answers[len(prompts) :], strict=True))
        bench.append(ANSWERS, [{"base": to_row(base), "expert": to_row(expert)} for base, expert in wave])
        pairs += wave
        bench.progress(len(pairs), len(items))
    judged = [
        judge(item, line, answer.text, answer.finish_reason)
        for item, (base, own) in zip(items, pairs, strict=True)
        for line, answer in ((Line.BASE_TEMPLATE, base), (Line.EXPERT, own))
    ]
    bench.write(ROWS, map(to_row, judged))
    bench.write(COMPARISONS, map(to_row, compare(judged, seed=recipe.seed)))


def request_answer(prompt: str, adapter: str | None, recipe: Recipe) -> GenerationRequest:
    """How every line of an evaluation is asked: greedily, with one limit and one stop rule."""
    return GenerationRequest(
        prompt, adapter=adapter, max_new_tokens=recipe.evaluation_max_new_tokens, stop=recipe.evaluation_stop
    )


def judge(item: Seed, line: str, text: str, finish_reason: str = "stop", *, shots: int = 0) -> Judged:
    """Score one line's answer to one item."""
    return Judged(item.id, item.task, line, shots, text, finish_reason, score_answer(text, item.output))


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


def compare(judged: Sequence[Judged], *, seed: int) -> list[Comparison]:
    """The expert against every other line: each task and the plain mean over tasks (``MEAN``), with paired bootstrap
    intervals of the difference."""
    rows = []
    for line, shots in dict.fromkeys((row.line, row.shots) for row in judged if row.line != Line.EXPERT):
        others = [row for row in judged if (row.line, row.shots) == (line, shots)]
        experts = [row for row in judged if (row.line, row.shots) == (Line.EXPERT, shots)]
        for metric in METRICS:
            rows += _compare_metric(list(zip(others, experts, strict=True)), metric, seed)
    return rows


def _compare_metric(pairs: Sequence[tuple[Judged, Judged]], metric: str, seed: int) -> list[Comparison]:
    chance = random.Random(f"{seed}/bootstrap")
    rows, draws = [], []
    tasks: dict[str, list[tuple[float, float]]] = {}
    for other, expert in pairs:
        name = f"{MEAN} (task)" if other.task == MEAN else other.task  # a user's task may be called like our row
        tasks.setdefault(name, []).append((other.scores[metric], expert.scores[metric]))
    line, shots = pairs[0][0].line, pairs[0][0].shots

    def row(task: str, n: int, score: float, expert: float, drawn: Sequence[float]) -> Comparison:
        low, high = _middle(drawn)
        return Comparison(task, metric, n, line, shots, score, expert, expert - score, low, high)

    for task, scores in tasks.items():
        draws.append(_resampled([expert - other for other, expert in scores], chance))
        theirs, ours = (_mean(column) for column in zip(*scores, strict=True))
        rows.append(row(task, len(scores), theirs, ours, draws[-1]))
    means = _mean([each.score for each in rows]), _mean([each.expert for each in rows])
    mean_draws = [_mean(draw) for draw in zip(*draws, strict=True)]
    return [*rows, row(MEAN, sum(each.n for each in rows), *means, mean_draws)]


def _middle(draws: Sequence[float]) -> tuple[float, float]:
    """The ends of the middle 95 %."""
    ordered = sorted(draws)
    return ordered[int(0.025 * NUM_RESAMPLES)], ordered[int(0.975 * NUM_RESAMPLES) - 1]


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
