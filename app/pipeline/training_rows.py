"""Training examples → what the trainer reads: each through the expert's template, alone or behind demonstrations.

An expert that has learned every row alone (paper App. A) can be worse than its base where it is shown examples.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence

from app.core.recipe import Recipe
from app.core.records import Example, Origin, Seed, TrainingRow
from app.pipeline.prompts import shorten
from app.pipeline.template import ALPACA

_ENDS = 1  # the end of sequence that the trainer adds


def training_rows(
    examples: Iterable[Example], *, seeds: Sequence[Seed], recipe: Recipe, count: Callable[[str], int]
) -> Iterator[TrainingRow]:
    """One a row. ``seeds``: those that may be shown; ``count``: tokens of a text.

    Which rows are learned behind how many seeds of their task, and of which, follows from the recipe's seed and the row
    alone; a seed that asks the very same is never shown, and fewer are where ``max_length`` would not do.
    """
    by_task: dict[str, list[Seed]] = {}
    for seed in seeds:
        by_task.setdefault(seed.task, []).append(seed)

    def fits(text: str) -> bool:
        return count(text) + _ENDS <= recipe.max_length

    for row in examples:

        def whole(shown: Sequence[Seed], row: Example = row) -> str:
            return ALPACA.render(row.instruction, row.input, shown=shown) + row.output

        shown = shorten(_draw(row, by_task.get(row.task or "", []), recipe), whole, fits=fits, least=0)
        prompt = ALPACA.render(row.instruction, row.input, shown=shown)
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


def _draw(row: Example, own: Sequence[Seed], recipe: Recipe) -> Sequence[Seed]:
    chance = random.Random(f"{recipe.seed}/training/{row.id}")
    others = [seed for seed in own if (seed.instruction, seed.input) != (row.instruction, row.input)]
    most = min(recipe.training_shots, len(others))
    if not most or chance.random() >= recipe.training_shots_share:
        return ()
    return chance.sample(others, chance.randint(1, most))
