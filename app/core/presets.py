"""A request's recipe: a preset, and single knobs laid over it. Unknown keys are refused by name."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from app.core.errors import InvalidInput, Problem
from app.core.recipe import Recipe

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # the base answers behind several draws of the seeds, an adapter of the seeds beside it, and only for tasks that the
    # base can answer at all; what no seed would say is dropped. Learning rate and batch are for bases under a billion
    # parameters; see docs/decisions/0018 and 0020
    "grounded": {
        "prompt_style": "anchored",
        "label_first": True,
        "num_examples": 2000,
        "max_prompts": 6000,
        "seeds_per_prompt": 5,
        "instruction_temperature": 0.6,
        "instruction_max_new_tokens": 384,
        "task_check": "leave_one_out",
        "response_shots": 5,
        "response_draws": 5,
        "responders": 1,
        "responders_join": True,
        "response_samples": 5,
        "validity": "strict",
        "merge_findings": True,
        "balance": True,
        "seed_share": 0.5,
        "batch_size": 8,
        "learning_rate": 1.5e-3,
        "epochs": 2,
        "training_shots": 5,
    },
    # minutes on two CPU cores with a base of 135 M parameters; measured on seeds held out, see docs/decisions/0004
    "quick": {
        "prompt_style": "anchored",
        "num_examples": 60,
        "max_prompts": 96,
        "instruction_temperature": 0.8,
        "instruction_max_new_tokens": 110,
        "response_shots": 2,
        "response_max_new_tokens": 64,
        "batch_size": 8,
        "micro_batch_tokens": 1024,
        "learning_rate": 1e-3,
        "max_length": 512,
        "evaluation_max_new_tokens": 64,
        "evaluation_shots": (0,),
    },
}


def make_recipe(overrides: dict[str, Any] | None = None) -> Recipe:
    """The preset named in ``overrides`` (default ``paper``) with the other keys laid over it; raises InvalidInput."""
    given = dict(overrides or {})
    preset = given.get("preset", "paper")
    if preset not in PRESETS:
        raise InvalidInput([Problem("recipe.preset", f"unknown preset {preset!r}; there are: {', '.join(PRESETS)}")])
    try:
        return Recipe.model_validate({**PRESETS[preset], **given, "preset": preset})
    except ValidationError as error:
        raise InvalidInput([problem for fault in error.errors() for problem in _problems(fault)]) from error


def _problems(fault: Any) -> list[Problem]:
    if fault["type"] == "contradiction":
        return [Problem(f"recipe.{field}", reason) for field, reason in fault["ctx"]["found"]]
    return [_problem(fault)]


def _problem(fault: Any) -> Problem:
    field = ".".join(["recipe", *(str(part) for part in fault["loc"])])
    if fault["type"] == "extra_forbidden":
        near = get_close_matches(str(fault["loc"][-1]), Recipe.model_fields, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(Recipe.model_fields)}"
        return Problem(field, f"unknown recipe key; {remedy}")
    return Problem(field, fault["msg"])
