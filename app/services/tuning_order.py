"""An order of OpenAI's fine-tuning API → the request POST /specialize takes. Knows nothing of HTTP or of storage.

The suffix is the domain, the training file are the seeds, the validation file is the evaluation set, and the
hyperparameters are knobs of the recipe. "auto" leaves a knob to the recipe's preset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.core.errors import InvalidInput, NotFound, Problem
from app.core.presets import PRESETS, make_recipe
from app.core.recipe import Recipe
from app.core.records import digest_of
from app.services.job_files import FileContent
from app.services.request_checks import RawRequest
from app.services.seed_files import Upload
from app.services.seeds import unusable_text

MULTIPLIER = "hyperparameters.learning_rate_multiplier"
_MAX_LEARNING_RATE = 0.1  # as the recipe has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """How the expert is trained; None is "auto"."""

    batch_size: int | None = None
    learning_rate_multiplier: float | None = None
    n_epochs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningOrder:
    """What was asked for; files by id. ``labels`` is what that API calls metadata."""

    model: str
    training_file: str
    validation_file: str | None = None
    suffix: str | None = None
    seed: int | None = None
    hyperparameters: Hyperparameters = Hyperparameters()
    labels: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    description: str | None = None
    webhook_url: str | None = None


def to_request(order: TuningOrder, *, base: str, read: Callable[[str], FileContent]) -> RawRequest:
    """The request, with what is wrong with the order as problems; ``read`` gets a file or raises NotFound."""
    problems = _model_problems(order.model, base)
    recipe, recipe_problems = _recipe(order)
    seeds = _upload("training_file", order.training_file, read, problems)
    evaluation = _upload("validation_file", order.validation_file, read, problems)
    if problems:  # without its files there is nothing more to be found
        raise InvalidInput([*problems, *recipe_problems])
    return RawRequest(
        domain=order.suffix if order.suffix is not None else f"ft-{digest_of(order.training_file)[:10]}",
        description=order.description,
        seeds=seeds,
        evaluation=evaluation,
        recipe=recipe,
        webhook_url=order.webhook_url,
        problems=tuple(recipe_problems),
    )


def told(recipe: Recipe, asked: Mapping[str, Any]) -> Hyperparameters:
    """What a job's training uses, as numbers; the multiplier is the one ``asked`` for, else of the preset's rate."""
    usual = PRESETS[recipe.preset].get("learning_rate", Recipe().learning_rate)
    multiplier = asked.get("learning_rate_multiplier") or round(recipe.learning_rate / usual, 6)
    return Hyperparameters(batch_size=recipe.batch_size, learning_rate_multiplier=multiplier, n_epochs=recipe.epochs)


def _model_problems(model: str, base: str) -> list[Problem]:
    if model == base:
        return []
    reason = f"{model!r} cannot be fine-tuned: here every expert is learned on the base {base!r}; name that"
    return [Problem("model", reason)]


def _upload(
    name: str, file_id: str | None, read: Callable[[str], FileContent], problems: list[Problem]
) -> Upload | None:
    if file_id is None:
        return None
    if fault := unusable_text(file_id):
        problems.append(Problem(name, fault))
        return None
    try:
        content = read(file_id)
    except NotFound as error:
        problems.append(Problem(name, error.message))
        return None
    return Upload(content.read(), content.filename)


def _recipe(order: TuningOrder) -> tuple[dict[str, Any], list[Problem]]:
    """The recipe with the hyperparameters laid over it, and what they cannot be."""
    given, wanted = dict(order.recipe), order.hyperparameters
    knobs = {"seed": order.seed, "batch_size": wanted.batch_size, "epochs": wanted.n_epochs}
    chosen = {knob: value for knob, value in knobs.items() if value is not None}
    problems = [
        Problem(f"recipe.{knob}", "is given twice: here and by its name in OpenAI's API")
        for knob in chosen
        if knob in given and given[knob] != chosen[knob]
    ]
    recipe = {**given, **chosen}
    if wanted.learning_rate_multiplier is not None and (rate := _learning_rate(given)) is not None:
        recipe["learning_rate"] = rate * wanted.learning_rate_multiplier
        if recipe["learning_rate"] > _MAX_LEARNING_RATE:
            most = _MAX_LEARNING_RATE / rate
            problems.append(Problem(MULTIPLIER, f"may be at most {most:g}: the recipe's learning rate is {rate:g}"))
            recipe["learning_rate"] = rate
    return recipe, problems


def _learning_rate(given: dict[str, Any]) -> float | None:
    """Of a recipe that can be read; whoever reads it says what is wrong with another."""
    try:
        return make_recipe(given).learning_rate if isinstance(given.get("preset", ""), str) else None
    except InvalidInput:
        return None
