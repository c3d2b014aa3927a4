"""What is to be run: a TOML file, checked before anything starts.

Every run is one job of the service: a domain's seeds, its evaluation items, and a recipe.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.core.errors import InvalidInput
from app.core.presets import make_recipe
from app.core.recipe import Recipe

FOLDER = Path(__file__).parent
DEFAULT_BASE = "gemma-3-270m"


class PlanError(ValueError):
    """A plan that cannot be carried out; the message names the file, the field and why."""


class Run(BaseModel):
    """One job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", description="Of its section in the report.")
    domain: str = Field(description="A folder of the data, and the expert's name.")
    recipe: dict[str, Any] = Field(default={}, description="Knobs over the plan's.")
    tasks: tuple[str, ...] = Field((), description="Of the domain; none named: all.")


class Plan(BaseModel):
    """A file's runs and what they share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs: tuple[Run, ...] = Field(min_length=1)
    seed: int = Field(0, ge=0, description="Draws seeds and items; the recipe has its own.")
    seeds_per_task: dict[str, int] = Field(description="By domain, train items a task that become seeds.")
    items_per_task: int = Field(ge=1, description="Items a task to evaluate with, or as many as there are.")
    evaluation: Literal["test", "train"] = Field(
        "test", description="train: the train items that are no seeds, for choosing settings; not for reports."
    )
    recipe: dict[str, Any] = Field(default={}, description="Knobs of every run.")
    base: str = Field(DEFAULT_BASE, description="Unless the command says otherwise.")
    settings: dict[str, str] = Field(default={}, description="SELFSPEC_… variables of the service, by their ends.")
    is_published: bool = Field(False, description="Whether the figures go into docs/results.")

    @model_validator(mode="after")
    def _agrees(self) -> Plan:
        names = [run.name for run in self.runs]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two runs are called {', '.join(sorted(repeated))}")
        if unknown := {run.domain for run in self.runs} - set(self.seeds_per_task):
            raise ValueError(f"seeds_per_task says nothing of {', '.join(sorted(unknown))}")
        if self.is_published and self.evaluation != "test":
            raise ValueError("only figures of test items are published: set evaluation to test")
        return self

    def only(self, names: Sequence[str] | None) -> Plan:
        """The plan with these of its runs; None: all. Raises PlanError."""
        known = [run.name for run in self.runs]
        if unknown := set(names or ()) - set(known):
            raise PlanError(f"there is no run {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
        return self.model_copy(update={"runs": tuple(run for run in self.runs if names is None or run.name in names)})

    def recipe_of(self, run: Run, *, size: int | None = None) -> dict[str, Any]:
        """The knobs that are sent. ``size`` takes num_examples' place; prompts grow and shrink with it."""
        given = {**self.recipe, **run.recipe}
        if size is None:
            return given
        plain = _checked(given, run)
        scaled = math.ceil(plain.max_prompts * size / plain.num_examples) if plain.num_examples else plain.max_prompts
        return {**given, "num_examples": size, "max_prompts": max(1, scaled)}

    def checked_recipe(self, run: Run, *, size: int | None = None) -> Recipe:
        """All knobs of a run. Raises PlanError."""
        return _checked(self.recipe_of(run, size=size), run)


def read_plan(path: Path) -> Plan:
    """The plan in a file, every recipe of it checked. Raises PlanError."""
    try:
        plan = Plan.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise PlanError(f"{path}: {error}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise PlanError(f"{path}: {faults}") from error
    for run in plan.runs:
        plan.checked_recipe(run)
    return plan


def _checked(given: Mapping[str, Any], run: Run) -> Recipe:
    """A corpus is known only when the service runs; any name stands for it here."""
    known = dict(given)
    if known.get("retrieval", "none") != "none":
        known.setdefault("corpus", "corpus")
    try:
        return make_recipe(known)
    except InvalidInput as error:
        faults = "; ".join(f"{problem.field} {problem.reason}" for problem in error.problems)
        raise PlanError(f"run {run.name}: {faults}") from error
