"""The whole of a specialization request, checked: every fault found, or the records to work with.

What was sent before it looks up in the library; the only thing it asks the engine is how long texts are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from app.core.errors import Conflict, InvalidInput, Problem
from app.core.ports import Engine
from app.core.presets import make_recipe
from app.core.recipe import Recipe
from app.core.records import Seed, digest_of
from app.pipeline.holdout import Split, question_of, split_seeds
from app.pipeline.stages import chooses
from app.pipeline.template import ALPACA
from app.services.domain_names import name_problem
from app.services.library import Library
from app.services.seed_checks import check_duplicates, check_leakage, check_lengths, refuse
from app.services.seed_files import Upload, json_reason, parse_json
from app.services.seeds import Limits, SeedSet, read_seeds, unusable_text
from app.services.several_domains import Union, unite
from app.services.webhook_options import WebhookOptions

MAX_DESCRIPTION_CHARS = 2000
MAX_KEY_CHARS = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRequest:
    """What came in, nothing believed yet; None is "not given". A recipe may be JSON text, as forms send it."""

    domain: object = None
    description: object = None
    seeds: Upload | object = None
    domains: object = None
    evaluation: Upload | object = None
    labelled: Upload | object = None
    recipe: object = None
    base: object = None
    webhook_url: object = None
    problems: tuple[Problem, ...] = ()  # what whoever read the request has found already


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRequest:
    """What can be used of a request, and every fault. ``split`` is None where the faults leave nothing to split."""

    domain: str
    description: str | None
    seeds: SeedSet
    evaluation: SeedSet
    labelled: SeedSet  # without what is held out of the seeds
    num_left_out: int  # of the labelled rows: they ask what is held out
    recipe: Recipe
    split: Split | None
    webhook_url: str | None
    problems: tuple[Problem, ...]

    @property
    def ignored(self) -> tuple[str, ...]:
        """Keys of items that were there and are not used."""
        return tuple(sorted({*self.seeds.ignored, *self.evaluation.ignored, *self.labelled.ignored}))


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request that can be carried out."""

    domain: str
    description: str | None
    seeds: tuple[Seed, ...]
    evaluation: tuple[Seed, ...]
    labelled: tuple[Seed, ...]
    recipe: Recipe
    base: str
    ignored: tuple[str, ...]  # keys of items that were there and are not used
    webhook_url: str | None = None

    @property
    def digest(self) -> str:
        """The same for requests that mean the same, however they were written."""
        return digest_of(
            self.domain,
            json.dumps(self.description),
            *map(_identity, self.seeds),
            "evaluation",
            *map(_identity, self.evaluation),
            "labelled",
            *map(_identity, self.labelled),
            json.dumps(self.recipe.model_dump(mode="json"), sort_keys=True),
            self.base,
            *([] if self.webhook_url is None else ["webhook_url", self.webhook_url]),
        )


class RequestChecker:
    """Checks requests against the limits and the base this service runs."""

    def __init__(
        self,
        *,
        engine: Engine,
        base: str,
        limits: Limits,
        library: Library,
        webhooks: WebhookOptions | None = None,
    ) -> None:
        self._engine, self._base, self._limits, self._library = engine, base, limits, library
        self._webhooks = webhooks or WebhookOptions()

    def accept(self, read: ReadRequest, *, base: object = None) -> CheckedRequest:
        """What was read, if it can be carried out; raises InvalidInput with all problems, Conflict for another base."""
        refuse(read.problems)
        return CheckedRequest(
            domain=read.domain,
            description=read.description,
            seeds=tuple(read.seeds.records()),
            evaluation=tuple(read.evaluation.records()),
            labelled=tuple(read.labelled.records()),
            recipe=read.recipe,
            base=self._check_base(base),
            ignored=read.ignored,
            webhook_url=read.webhook_url,
        )

    def read(self, raw: RawRequest) -> ReadRequest:
        """Read everything and keep every fault as a problem; raises TooLarge for too many items."""
        union, source_problems = self._union(raw)
        seeds = union.seeds if union else self._items(raw.seeds, "seeds")
        evaluation = union.evaluation if union else self._items(raw.evaluation, "evaluation")
        labelled = self._items(raw.labelled, "labelled")
        recipe, recipe_problems = _read_recipe(raw.recipe)
        domain = name_problem(raw.domain)
        problems = [
            *raw.problems,
            *source_problems,
            *([domain] if domain else []),
            *_text_problems("description", raw.description, longest=MAX_DESCRIPTION_CHARS),
            *_text_problems("base", raw.base, longest=MAX_DESCRIPTION_CHARS),
            *self._webhook_problems(raw.webhook_url),
            *recipe_problems,
            *self._fit_problems(recipe),
            *self._library.corpus_problems(recipe),
            *self._item_problems(seeds, evaluation, labelled, recipe),
        ]
        split, split_problems = _split(seeds, evaluation, recipe)
        if not (seeds.problems or evaluation.problems):  # else the missing ones may be what there is to hold out
            problems += split_problems
        kept = _not_held_out(labelled, split)
        return ReadRequest(
            domain=raw.domain if isinstance(raw.domain, str) else "",
            description=_description(raw.description, union),
            seeds=seeds,
            evaluation=evaluation,
            labelled=kept,
            num_left_out=len(labelled.seeds) - len(kept.seeds),
            recipe=recipe,
            split=split,
            webhook_url=raw.webhook_url if isinstance(raw.webhook_url, str) else None,
            problems=tuple(problems),
        )

    def _union(self, raw: RawRequest) -> tuple[Union | None, list[Problem]]:
        """The sets of several domains, if that is what was sent."""
        if raw.domains is None:
            return None, []
        both = [Problem("seeds", "is given beside domains: send one of the two")] if raw.seeds is not None else []
        evaluation = None if raw.evaluation is None else self._items(raw.evaluation, "evaluation")
        return unite(raw.domains, evaluation=evaluation, find=self._library.find_domain, limits=self._limits), both

    def _items(self, given: object, source: str) -> SeedSet:
        if given is None:
            missing = "is missing: send labelled examples, or several domains' as domains"
            return SeedSet(source, (), (Problem(source, missing, source=source),) if source == "seeds" else ())
        if not isinstance(given, Upload | list):
            return SeedSet(source, (), (Problem(source, "must be a list of examples", source=source),))
        return read_seeds(given, source=source, limits=self._limits)

    def _item_problems(
        self, seeds: SeedSet, evaluation: SeedSet, labelled: SeedSet, recipe: Recipe
    ) -> Iterator[Problem]:
        for learned in (seeds, labelled):
            yield from check_leakage(learned, evaluation)
        for items in (seeds, evaluation, labelled):
            yield from items.problems
            yield from check_duplicates(items)
            yield from check_lengths(items, tokens=self._engine, template=ALPACA, max_tokens=recipe.max_length)

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

    def _webhook_problems(self, url: object) -> list[Problem]:
        fault = None if url is None else self._webhooks.problem(url)
        return [Problem("webhook_url", fault)] if fault else []

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


def _split(seeds: SeedSet, evaluation: SeedSet, recipe: Recipe) -> tuple[Split | None, list[Problem]]:
    """Which seeds will be learned; or why none can be held out to judge by."""
    learned, judged = seeds.records(), evaluation.records()
    try:
        chosen = chooses(recipe)
        return split_seeds(learned, judged, fraction=recipe.holdout_fraction, seed=recipe.seed, chooses=chosen), []
    except InvalidInput as error:
        return None, list(error.problems)


def _not_held_out(labelled: SeedSet, split: Split | None) -> SeedSet:
    """The labelled rows but those that ask what seeds held out for the report ask."""
    if split is None or not split.is_holdout:
        return labelled
    held = {question_of(seed) for seed in split.evaluation}
    return replace(labelled, seeds=tuple(row for row in labelled.seeds if question_of(row.seed) not in held))


def _description(given: object, union: Union | None) -> str | None:
    if isinstance(given, str):
        return given.strip()
    return union.description[:MAX_DESCRIPTION_CHARS] if union and union.description else None


def _identity(seed: Seed) -> str:
    return digest_of(seed.id, seed.domain, *seed.references)
