"""Tasks whose new texts would mostly be cut off: a prompt that asks for one is asked in vain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from app.core.recipe import Recipe
from app.core.records import Seed
from app.pipeline.prompts import varying_texts
from app.pipeline.validity import Rules

_TEXTS_COUNTED = 20  # of each task

Task = tuple[str, str]  # domain and name


def cut_texts(seeds: Sequence[Seed], *, recipe: Recipe, count: Callable[[str], int]) -> dict[Task, int]:
    """The tasks half of whose seeds' texts are as long as anchored prompts let new ones be, or longer, with the median
    in tokens. Where the beginning of a text is enough, none is.
    """
    if recipe.prompt_style != "anchored":
        return {}
    tasks: dict[Task, list[Seed]] = {}
    for seed in seeds:
        tasks.setdefault((seed.domain, seed.task), []).append(seed)
    rules = Rules(seeds, is_strict=recipe.validity == "strict")
    medians = {
        task: round(median(map(count, varying_texts(own[:_TEXTS_COUNTED]))))
        for task, own in sorted(tasks.items())
        if not rules.lists_findings(own[0].task)
    }
    return {task: tokens for task, tokens in medians.items() if tokens >= recipe.instruction_max_new_tokens}


def without_cut(seeds: Sequence[Seed], cut: dict[Task, int]) -> Sequence[Seed]:
    """The seeds of the other tasks; if there are none, all: then the yield says that the limit is too low."""
    return [seed for seed in seeds if (seed.domain, seed.task) not in cut] or seeds
