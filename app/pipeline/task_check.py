"""Seeds → the tasks to trust: the base is asked each seed as it will be asked new tasks, without being shown it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from app.core.records import Answer, Candidate, Example, Seed
from app.pipeline.answering import ANSWERS, answer_all, judge_answer
from app.pipeline.bench import ROWS, Bench
from app.pipeline.merging import Merger
from app.pipeline.rows import from_row, to_row
from app.pipeline.trust import TaskScore, score_tasks
from app.pipeline.validity import Rules


def check_tasks(bench: Bench) -> None:
    """A score a task, from answers that pass for its seeds' (leave-one-out)."""
    seeds = bench.split.training
    rules = Rules(seeds, is_strict=bench.recipe.validity == "strict")
    answer_all(bench, _questions(seeds), total=len(seeds), seeds=seeds, rules=rules)
    scores = list(score_tasks(seeds, _usable(bench, rules), least_f1=bench.recipe.min_task_f1))
    bench.write(ROWS, map(to_row, scores))
    _tell(bench, scores)


def _questions(seeds: Sequence[Seed]) -> Iterator[Candidate]:
    """The seeds as if they were new."""
    for number, seed in enumerate(seeds):
        yield Candidate(seed.instruction, seed.input, seed.task, number, 0, (), domain=seed.domain)


def _usable(bench: Bench, rules: Rules) -> Iterator[str | None]:
    """What would be learned of each answer."""
    answers = [from_row(Answer, row) for row in bench.kept(ANSWERS, unit=1)]
    pairs = list(zip(_questions(bench.split.training), answers, strict=True))
    merger = Merger(pairs, recipe=bench.recipe, rules=rules)
    for question, answer in pairs:
        judged = judge_answer(question, merger.merge(question, answer), recipe=bench.recipe, rules=rules)
        yield judged.output if isinstance(judged, Example) else None


def _tell(bench: Bench, scores: Sequence[TaskScore]) -> None:
    left_out = [score for score in scores if not score.is_trusted]
    told = f"the base answers the seeds of {len(scores) - len(left_out)} of {len(scores)} tasks well enough"
    if left_out:
        listed = ", ".join(f"{one.task} ({one.f1:.1f}, one answer to all {one.constant_f1:.1f})" for one in left_out)
        told += f"; nothing is written for {listed}"
    bench.tell("tasks_checked", told, data={"tasks": [to_row(score) for score in scores]}, is_warning=bool(left_out))
