"""Training examples → what the trainer reads: each through the expert's template, alone or behind demonstrations.

An expert that has learned every row alone (paper App. A) can be worse than its base where it is shown examples.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from app.core.recipe import Recipe
from app.core.records import Example, Origin, Seed, TrainingRow
from app.pipeline.prompts import shorten
from app.pipeline.template import ALPACA

_ENDS = 1  # the end of sequence that the trainer adds


def training_rows(
    examples: Iterable[Example], *, shown: Iterable[Example], recipe: Recipe, count: Callable[[str], int]
) -> Iterator[TrainingRow]:
    """One a row. ``shown``: what may stand before another row of its task; ``count``: tokens of a text.

    Which rows are learned behind how many of these, and behind which, follows from the recipe's seed and the row alone;
    one that asks the very same never is, and fewer are where ``max_length`` would not do.
    """
    of_task: dict[tuple[str, str | None], list[Example]] = {}
    for row in shown if recipe.training_shots else ():
        of_task.setdefault((row.domain, row.task), []).append(row)

    def fits(text: str) -> bool:
        return count(text) + _ENDS <= recipe.max_length

    for row in examples:
        drawn = _draw(row, of_task.get((row.domain, row.task), []), recipe)
        before = shorten(drawn, partial(_whole, row), fits=fits, least=0)
        prompt = ALPACA.render(row.instruction, row.input, shown=before)
        yield TrainingRow(prompt, row.output, row.weight, is_seed=row.origin is Origin.SEED)


def seed_example(seed: Seed) -> Example:
    """A seed as a training row."""
    return Example(
        seed.id,
        seed.instruction,
        seed.input,
        seed.output,
        seed.task,
        Origin.SEED,
        (seed.id,),
        generator="user",
        domain=seed.domain,
    )


def _whole(row: Example, before: Sequence[Seed]) -> str:
    return ALPACA.render(row.instruction, row.input, shown=before) + row.output


def _draw(row: Example, own: Sequence[Example], recipe: Recipe) -> Sequence[Seed]:
    chance = random.Random(f"{recipe.seed}/training/{row.id}")
    others = [each for each in own if (each.instruction, each.input) != (row.instruction, row.input)]
    most = min(recipe.training_shots, len(others))
    if not most or chance.random() >= recipe.training_shots_share:
        return ()
    drawn = chance.sample(others, chance.randint(1, most))
    return [Seed(each.task or "", each.instruction, each.input, each.output) for each in drawn]
