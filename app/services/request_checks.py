"""The whole of a specialization request, checked: every fault found, or the records to work with.

Reads no file and no table; the only thing it asks the engine is how long texts are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.core.errors import Conflict, InvalidInput, Problem
from app.core.ports import Engine
from app.core.recipe import Recipe, make_recipe
from app.core.records import Seed, digest_of
from app.pipeline.template import ALPACA
from app.services.domain_names import name_problem
from app.services.seed_checks import check_duplicates, check_leakage, check_lengths, refuse
from app.services.seed_files import Upload, json_reason, parse_json
from app.services.seeds import Limits, SeedSet, read_seeds, unusable_text

MAX_DESCRIPTION_CHARS = 2000
MAX_KEY_CHARS = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRequest:
    """What came in, nothing believed yet; None is "not given". A recipe may be JSON text, as forms send it."""

    domain: object = None
    description: object = None
    seeds: Upload | object = None
    evaluation: Upload | object = None
    recipe: object = None
    base: object = None
    problems: tuple[Problem, ...] = ()  # what whoever read the request has found already


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request that can be carried out."""

    domain: str
    description: str | None
    seeds: tuple[Seed, ...]
    evaluation: tuple[Seed, ...]
    recipe: Recipe
    base: str
    ignored: tuple[str, ...]  # keys of items that were there and are not used

    @property
    def digest(self) -> str:
        """The same for requests that mean the same, however they were written."""
        return digest_of(
            self.domain,
            json.dumps(self.description),
            *(seed.id for seed in self.seeds),
            "evaluation",
            *(item.id for item in self.evaluation),
            json.dumps(self.recipe.model_dump(mode="json"), sort_keys=True),
            self.base,
        )


class RequestChecker:
    """Checks requests against the limits and the base this service runs."""

    def __init__(self, *, engine: Engine, base: str, limits: Limits) -> None:
        self._engine, self._base, self._limits = engine, base, limits

    def check(self, raw: RawRequest) -> CheckedRequest:
        """Raises InvalidInput with all problems, TooLarge for too many items, Conflict for another base."""
        seeds = self._items(raw.seeds, "seeds")
        evaluation = self._items(raw.evaluation, "evaluation")
        recipe, recipe_problems = _read_recipe(raw.recipe)
        domain = name_problem(raw.domain)
        refuse(
            [
                *raw.problems,
                *([domain] if domain else []),
                *_text_problems("description", raw.description, longest=MAX_DESCRIPTION_CHARS),
                *_text_problems("base", raw.base, longest=MAX_DESCRIPTION_CHARS),
                *recipe_problems,
                *self._fit_problems(recipe),
                *self._item_problems(seeds, evaluation, recipe),
            ]
        )
        return CheckedRequest(
            domain=str(raw.domain),
            description=None if raw.description is None else str(raw.description).strip(),
            seeds=tuple(seeds.records()),
            evaluation=tuple(evaluation.records()),
            recipe=recipe,
            base=self._check_base(raw.base),
            ignored=tuple(sorted({*seeds.ignored, *evaluation.ignored})),
        )

    def _items(self, given: object, source: str) -> SeedSet:
        if given is None:
            missing = (
                [Problem("seeds", "is missing: send labelled examples", source=source)] if source == "seeds" else []
            )
            return SeedSet(source, (), tuple(missing))
        if not isinstance(given, Upload | list):
            return SeedSet(source, (), (Problem(source, "must be a list of examples", source=source),))
        return read_seeds(given, source=source, limits=self._limits)

    def _item_problems(self, seeds: SeedSet, evaluation: SeedSet, recipe: Recipe) -> list[Problem]:
        problems = [*seeds.problems, *evaluation.problems, *check_leakage(seeds, evaluation)]
        for items in (seeds, evaluation):
            problems += check_duplicates(items)
            problems += check_lengths(items, tokens=self._engine, template=ALPACA, max_tokens=recipe.max_length)
        if not problems and not evaluation.seeds:
            problems += _holdout_problems(seeds.records())
        return problems

    def _fit_problems(self, recipe: Recipe) -> list[Problem]:
        """Knobs that this service's engine could not serve."""
        problems = []
        if recipe.lora_rank > self._limits.max_lora_rank:
            reason = f"at most {self._limits.max_lora_rank} can be served here (SELFSPEC_MAX_LORA_RANK)"
            problems.append(Problem("recipe.lora_rank", reason))
        base = self._engine.base
        longest = recipe.max_length + recipe.evaluation_max_new_tokens  # an evaluation prompt and its answer
        if base is not None and longest > base.context_tokens:
            reason = (
                f"{recipe.max_length:,} tokens and {recipe.evaluation_max_new_tokens:,} of an answer "
                f"(evaluation_max_new_tokens) do not fit the base, which reads {base.context_tokens:,}"
            )
            problems.append(Problem("recipe.max_length", reason))
        return problems

    def _check_base(self, given: object) -> str:
        if given is not None and given != self._base:
            raise Conflict(
                f"this service runs base {self._base!r}; leave base out or start one with {given!r}", param="base"
            )
        return self._base


def check_idempotency_key(key: str | None) -> str | None:
    """The key itself; raises InvalidInput if it cannot be one."""
    if key is not None and not (0 < len(key) <= MAX_KEY_CHARS and key.isascii() and key.isprintable()):
        reason = f"must be 1 to {MAX_KEY_CHARS} printable ASCII characters"
        raise InvalidInput([Problem("Idempotency-Key", reason, source="header")])
    return key


def _read_recipe(given: object) -> tuple[Recipe, list[Problem]]:
    """The recipe and its problems; the defaults stand in for one that cannot be read."""
    default = make_recipe()
    if isinstance(given, str):
        try:
            given = parse_json(given)
        except ValueError as error:
            return default, [Problem("recipe", json_reason(error))]
    if given is None:
        return default, []
    if not isinstance(given, dict):
        return default, [Problem("recipe", "must be an object of knobs")]
    if not isinstance(given.get("preset", ""), str):
        return default, [Problem("recipe.preset", "must be a text")]
    return _make_recipe(given, default)


def _make_recipe(given: dict[str, Any], default: Recipe) -> tuple[Recipe, list[Problem]]:
    try:
        return make_recipe(given), []
    except InvalidInput as error:
        return default, list(error.problems)


def _text_problems(field: str, value: object, *, longest: int) -> list[Problem]:
    if value is None:
        return []
    if not isinstance(value, str):
        return [Problem(field, "must be a text")]
    if len(value) > longest:
        return [Problem(field, f"is {len(value):,} characters long; at most {longest:,} can be used")]
    fault = unusable_text(value)
    return [Problem(field, fault)] if fault else []


def _holdout_problems(seeds: Sequence[Seed]) -> list[Problem]:
    """Without an evaluation set part of the seeds is held out, which takes a task with two of them."""
    if len({seed.task for seed in seeds}) < len(seeds):
        return []
    reason = "no task has two examples, so none can be held out to judge the expert: send more, or send evaluation"
    return [Problem("seeds", reason, source="seeds")]
