"""The walk: the stages of a job and their order. The only place that knows which stage follows which.

    seeds ─► instructions ─► responses ─► dataset ─► adapter ─► metrics ─► gate ─► served expert

A recipe may ask for several rounds (``instructions-2`` …) or several sizes of one pool (``dataset-s100`` …); then each
adapter has a ``trial`` on held-out seeds and ``choice`` says which is the expert. ``responder`` stages learn the seeds
to answer the new tasks; ``tasks`` says which tasks the base can answer at all; the ``adapter-seeds…`` stages are what
the expert is compared with. A stage reads what earlier ones made, works through its own file of this package and
writes its product; a killed stage finds its unfinished files again.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from app.core.recipe import Recipe
from app.pipeline.adapter import (
    make_adapter,
    make_adapter_of_labelled,
    make_adapter_of_seeds,
    make_adapter_of_seeds_by_steps,
    make_responder,
)
from app.pipeline.bench import LABELLED, SEEDS_BY_EPOCHS, SEEDS_BY_STEPS, Stage, always
from app.pipeline.choice import has_not_fallen, make_choice, make_trial
from app.pipeline.dataset import make_dataset
from app.pipeline.gate import make_verdict
from app.pipeline.instructions import make_instructions
from app.pipeline.metrics import make_metrics
from app.pipeline.responses import make_responses
from app.pipeline.task_check import check_tasks


def walk(recipe: Recipe, *, has_labelled: bool = False) -> tuple[Stage, ...]:
    """The stages of a job, in order. ``has_labelled``: the user sent labelled rows to compare with."""
    candidates = list(_sizes(recipe) if recipe.sizes else _rounds(recipe))
    adapters = tuple(stage.name for stage in candidates if stage.is_candidate)
    trials = tuple(stage.name for stage in candidates if stage.kind == "trial")
    choice = [Stage("choice", "choice", (*trials, *adapters), make_choice)] if chooses(recipe) else []
    expert = (*adapters, *(stage.name for stage in choice))
    controls = list(_controls(recipe, expert, has_labelled=has_labelled))
    return (
        *_responders(recipe),
        *(Stage(name, "tasks", (), check_tasks) for name in _checks(recipe)),
        *candidates,
        *choice,
        *controls,
        Stage("metrics", "metrics", (*expert, *(stage.name for stage in controls)), make_metrics),
        Stage("gate", "gate", ("metrics",), make_verdict),
    )


def chooses(recipe: Recipe) -> bool:
    """Whether the job makes several adapters and takes the best by held-out seeds."""
    return recipe.iterations > 1 or len(recipe.sizes) > 1


def _responders(recipe: Recipe) -> list[Stage]:
    """Adapters of the seeds alone that answer the new tasks of the first round."""
    return [
        Stage(_numbered("responder", number), "adapter", (), partial(make_responder, number=number))
        for number in range(1, recipe.responders + 1)
    ]


def _checks(recipe: Recipe) -> tuple[str, ...]:
    """The stage, if any, that says which tasks new rows are written for."""
    return ("tasks",) if recipe.task_check != "off" else ()


def _controls(recipe: Recipe, expert: tuple[str, ...], *, has_labelled: bool) -> Iterator[Stage]:
    """What the expert is compared with; ``expert``: the stages that say which adapter it is."""
    if "epochs" in recipe.controls:
        yield Stage(SEEDS_BY_EPOCHS, "adapter", (), make_adapter_of_seeds)
    if "steps" in recipe.controls:
        yield Stage(SEEDS_BY_STEPS, "adapter", expert, make_adapter_of_seeds_by_steps)
    if has_labelled:
        yield Stage(LABELLED, "adapter", (), make_adapter_of_labelled)


def _rounds(recipe: Recipe) -> Iterator[Stage]:
    """Instructions to adapter, as often as the recipe says; the previous adapter writes the next round's data."""
    trials: tuple[str, ...] = ()
    for number in range(1, recipe.iterations + 1):
        name = partial(_numbered, number=number)
        before = name("adapter", number=number - 1) if number > 1 else None
        writers = (before,) if before else ()
        responders = writers or tuple(stage.name for stage in _responders(recipe))
        stage = partial(Stage, iteration=number, is_needed=has_not_fallen if number > 1 else always)
        asked = (*_checks(recipe), *trials)
        yield stage(name("instructions"), "instructions", (*asked, *writers), make_instructions, writers=writers)
        yield stage(
            name("responses"),
            "responses",
            (name("instructions"), *asked, *responders),
            make_responses,
            writers=responders,
        )
        yield stage(name("dataset"), "dataset", (name("responses"), *trials), make_dataset)
        start = writers if recipe.iteration_mode == "continue" else ()
        learned = (name("dataset"), *start, *trials)
        yield stage(name("adapter"), "adapter", learned, make_adapter, is_candidate=True)
        if chooses(recipe):
            yield stage(name("trial"), "trial", (name("adapter"), *trials), make_trial)
            trials = (*trials, name("trial"))


def _sizes(recipe: Recipe) -> Iterator[Stage]:
    """One pool; a dataset and an adapter for each size."""
    responders = tuple(stage.name for stage in _responders(recipe))
    checks = _checks(recipe)
    read = ("instructions", *checks, *responders)
    yield Stage("instructions", "instructions", checks, make_instructions)
    yield Stage("responses", "responses", read, make_responses, writers=responders)
    for size in recipe.sizes:
        made = partial(make_dataset, size=size)
        dataset = f"dataset-s{size}"
        yield Stage(dataset, "dataset", ("responses",), made, size=size)
        yield Stage(f"adapter-s{size}", "adapter", (dataset,), make_adapter, is_candidate=True, size=size)
        if chooses(recipe):
            yield Stage(f"trial-s{size}", "trial", (f"adapter-s{size}",), make_trial)


def _numbered(kind: str, number: int) -> str:
    return kind if number == 1 else f"{kind}-{number}"
