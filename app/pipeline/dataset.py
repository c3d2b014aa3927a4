"""Seeds and examples → the training set: the seeds are part of it (paper App. D).

Generated rows that contradict each other or a seed, that repeat one, that would shift a task's answers, or that hold
what the expert is judged by are dropped and listed. Rows are streamed; kept of all of them are digests only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from app.core.records import Check, Example, Rejection, Seed, digest_of
from app.core.texts import evened
from app.pipeline.balance import Balance
from app.pipeline.bench import ROWS, Bench
from app.pipeline.contamination import Contamination, Hit
from app.pipeline.rows import from_row, to_row
from app.pipeline.training_rows import seed_example

REJECTIONS, CONTAMINATED = "rejections.jsonl", "contaminated.jsonl"
_KEPT = "kept"
_REASONS = ("contradicts", "repeats", "unbalanced")
_TOGETHER = 256  # rows judged between two writes


def make_dataset(bench: Bench, *, size: int | None = None) -> None:
    """Seeds and examples in one training set; ``size``: of the usable examples only the first so many."""
    seeds = bench.split.training
    questions = Questions(seeds)
    for example in _examples(bench):
        questions.hear(example)
    judged_by = {item.id: item for item in (*bench.split.evaluation, *bench.split.holdout)}
    contamination = Contamination(judged_by.values(), seeds=seeds, recipe=bench.recipe)
    for file in (REJECTIONS, CONTAMINATED):
        bench.write(file, [])
    bench.write(ROWS, (to_row(seed_example(seed)) for seed in seeds))
    total = len(seeds) + sum(1 for _ in _examples(bench))
    counts: Counter[str] = Counter()
    judged = judge_rows(_examples(bench), questions, contamination)
    if bench.recipe.balance:
        judged = balanced(judged, Balance(seeds, _examples(bench)))
    results = first_usable(judged, size)
    while chunk := list(islice(results, _TOGETHER)):
        bench.append(ROWS, [to_row(row) for row in chunk if isinstance(row, Example)])
        bench.append(REJECTIONS, [to_row(row) for row in chunk if isinstance(row, Rejection)])
        bench.append(CONTAMINATED, [to_row(row) for row in chunk if isinstance(row, Hit)])
        counts.update(_outcome(row) for row in chunk)
        bench.progress(len(seeds) + counts.total(), total)
    _tell(bench, counts, num_items=contamination.num_items, is_alone=size == 0 or not bench.recipe.pool_size)


class Questions:
    """What the seeds and all examples ask, and whether the examples answer it in one way."""

    def __init__(self, seeds: Iterable[Seed]) -> None:
        self._seeds: dict[str, tuple[str, set[str]]] = {}  # question → id of the first seed, its answers
        self._answers: dict[str, str | None] = {}  # question → digest of the answer; None: there are several
        self._taken: set[str] = set()
        for seed in seeds:
            self._seeds.setdefault(_question(seed), (seed.id, set()))[1].add(evened(seed.output))

    def hear(self, example: Example) -> None:
        """Take note of an example before any is judged."""
        question, answer = _question(example), digest_of(evened(example.output))
        if self._answers.setdefault(question, answer) != answer:
            self._answers[question] = None

    def refusal(self, example: Example) -> tuple[str, str] | None:
        """Reason and detail if the example must be dropped; a question counts as asked from then on."""
        question = _question(example)
        if question in self._seeds:
            seed, answers = self._seeds[question]
            return "repeats" if evened(example.output) in answers else "contradicts", f"seed {seed}"
        if self._answers[question] is None:
            return "contradicts", "another generated answer to the same question"
        if question in self._taken:
            return "repeats", "an earlier row"
        self._taken.add(question)
        return None


def judge_rows(
    examples: Iterable[Example], questions: Questions, contamination: Contamination
) -> Iterator[Example | Rejection | Hit]:
    """Each example with the verdicts on it, or why it is dropped, in order."""
    for example in examples:
        if refusal := questions.refusal(example):
            reason, detail = refusal
            yield Rejection(reason, example.reply or 0, example.item or 0, example.output, detail)
            continue
        hit, likeness = contamination.judge(example)
        detail = f"ROUGE-L {likeness.score:.3f} with item {likeness.name}" if likeness.name else ""
        passed = (Check("contradicts", True), Check("contamination", True, round(likeness.score, 4), detail))
        yield hit or replace(example, checks=(*example.checks, *passed))


def balanced(results: Iterable[Example | Rejection | Hit], balance: Balance) -> Iterator[Example | Rejection | Hit]:
    """The results, those that would shift a task's answers refused."""
    for result in results:
        if isinstance(result, Example) and balance.refuses(result):
            yield Rejection("unbalanced", result.reply or 0, result.item or 0, result.output, f"task {result.task}")
        else:
            yield result


def first_usable(results: Iterator[Example | Rejection | Hit], size: int | None) -> Iterator[Example | Rejection | Hit]:
    """The results up to the usable example number ``size``; None: all of them."""
    left = -1 if size is None else size
    while left and (result := next(results, None)) is not None:
        left -= isinstance(result, Example)
        yield result


def _examples(bench: Bench) -> Iterator[Example]:
    """What the responses stage made, each row naming that stage."""
    stage = next(name for name in bench.stage.reads if name.split("-")[0] == "responses")
    return (replace(from_row(Example, row), stage=stage) for row in bench.product(stage))


def _outcome(row: Example | Rejection | Hit) -> str:
    if isinstance(row, Example):
        return _KEPT
    return row.kind if isinstance(row, Hit) else row.reason


def _tell(bench: Bench, counts: Counter[str], *, num_items: int, is_alone: bool) -> None:
    """``is_alone``: the seeds were to be learned without anything generated."""
    split, judged, hits = bench.split, counts.total(), {kind: counts[kind] for kind in ("ngram", "rouge_l")}
    dropped = sum(hits.values())
    found = f"{dropped} of {judged} generated rows hold what {num_items} items ask: dropped"
    none = f"none of {judged} generated rows holds what {num_items} items ask"
    data: dict[str, Any] = {"rows": judged, "items": num_items, "dropped": dropped, **hits}
    bench.tell("contamination_checked", found if dropped else none, data=data)
    num_rows, held = len(split.training) + counts[_KEPT], "held-out seeds" if split.is_holdout else "uploaded items"
    if not counts[_KEPT] and not is_alone:
        told = f"nothing that was generated could be used: the expert learns from {num_rows} seeds alone"
        bench.tell("seeds_alone", told, data={"seeds": num_rows}, is_warning=True)
    bench.tell(
        "dataset_ready",
        f"{num_rows} training rows, {len(split.training)} of them seeds; evaluation on {len(split.evaluation)} {held}",
        data={
            "rows": num_rows,
            "seeds": len(split.training),
            "rejected": {reason: counts[reason] for reason in _REASONS if counts[reason]},
            "evaluation": len(split.evaluation),
            "held_out": [seed.id for seed in split.holdout],
        },
    )


def _question(row: Seed | Example) -> str:
    """What is asked, with case and spacing evened out."""
    return digest_of(evened(row.instruction), evened(row.input))
