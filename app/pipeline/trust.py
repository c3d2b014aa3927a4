"""Which tasks' new rows are worth learning: those whose seeds the base answers better than one answer to all would.

Where it does not, its answers to new inputs teach errors (docs/decisions/0018-tasks-are-tried-first.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from app.core.records import Seed
from app.pipeline.bench import Bench
from app.pipeline.cut_texts import cut_texts, without_cut
from app.pipeline.rows import from_row
from app.pipeline.scores import token_f1

FEWEST_SEEDS = 4  # of a task with fewer the figures say nothing


@dataclass(frozen=True, slots=True)
class TaskScore:
    """How the seeds of one task were answered: token F1, 0 to 100, over the answers that could be learned from."""

    domain: str
    task: str
    num_seeds: int
    num_usable: int  # answers that could be learned from
    f1: float
    constant_f1: float  # of the best single answer to those seeds, among answers that seeds share; 0: they share none
    is_trusted: bool


def score_tasks(seeds: Sequence[Seed], answers: Iterable[str | None], *, least_f1: float) -> Iterator[TaskScore]:
    """One a task, in the order of the seeds. ``answers``: one a seed; None: nothing that could be learned from.

    A task is trusted with an F1 above the best single answer's, and of ``least_f1`` or more; or with too few seeds to
    tell.
    """
    of_task: dict[tuple[str, str], list[tuple[Seed, str | None]]] = {}
    for seed, answer in zip(seeds, answers, strict=True):
        of_task.setdefault((seed.domain, seed.task), []).append((seed, answer))
    for (domain, task), pairs in of_task.items():
        usable = [(seed, answer) for seed, answer in pairs if answer is not None]
        shared = [output for output, count in Counter(seed.output for seed, _ in pairs).items() if count > 1]
        constant = max((_mean_f1((seed, output) for seed, _ in usable) for output in shared), default=0.0)
        f1 = _mean_f1(usable)
        is_trusted = len(pairs) < FEWEST_SEEDS or (f1 > constant and f1 >= least_f1)
        yield TaskScore(domain, task, len(pairs), len(usable), f1, constant, is_trusted)


def trusted_seeds(bench: Bench) -> Sequence[Seed]:
    """The training seeds of the tasks whose new rows are worth learning."""
    seeds = bench.split.training
    if bench.recipe.task_check == "off":
        return seeds
    scores = (from_row(TaskScore, row) for row in bench.product("tasks"))
    trusted = {(score.domain, score.task) for score in scores if score.is_trusted}
    return [seed for seed in seeds if (seed.domain, seed.task) in trusted]


def seeds_to_write_for(bench: Bench) -> Sequence[Seed]:
    """Of these, those of the tasks whose new texts would not be cut off: what the job writes new rows for."""
    seeds = trusted_seeds(bench)
    return without_cut(seeds, cut_texts(seeds, recipe=bench.recipe, count=bench.engine.count))


def _mean_f1(answered: Iterable[tuple[Seed, str]]) -> float:
    scores = [max(token_f1(answer, gold) for gold in (seed.output, *seed.references)) for seed, answer in answered]
    return 100 * fmean(scores) if scores else 0.0
