"""A job's stages → the work that each will be, before any of it is done.

Sizes follow from the recipe and the seeds; how much of what is written is of use follows from past jobs, or is assumed.
A job that stops early, or that skips rounds, does less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from app.core.recipe import Recipe
from app.pipeline.bench import LABELLED, WAVE, Stage
from app.pipeline.forgetting import PROBE
from app.pipeline.stages import walk
from app.pipeline.template import ALPACA, BARE
from app.services.throughput import Experience
from app.services.work import Sort, Work, sort_of
from app.services.work_texts import Texts, Wanted

ANCHORED_YIELD, LISTED_YIELD = 0.65, 0.25  # accepted items: of a reply's one; of those that a list was to have
_PASSAGE_TOKENS = 150  # of a retrieved passage


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """One stage and what it will be."""

    stage: str
    sort: Sort
    work: Work


@dataclass(frozen=True, slots=True)
class Plan:
    """All stages, in order. ``examples``: generated ones that are expected to be accepted, in a round."""

    stages: tuple[PlannedStage, ...]
    prompts: int
    examples: int
    is_yield_measured: bool


def make_plan(wanted: Wanted, texts: Texts, experience: Experience) -> Plan:
    """The work of every stage of the walk."""
    return _Planner(wanted, texts, experience).plan()


class _Planner:
    def __init__(self, wanted: Wanted, texts: Texts, experience: Experience) -> None:
        self._wanted, self._texts, self._recipe = wanted, texts, wanted.recipe
        style = Sort("instructions", self._recipe.prompt_style)
        measured = experience.accepted_a_prompt(style)
        self._is_measured = measured is not None
        accepted = _assumed_yield(self._recipe) if measured is None else measured
        self._prompts, self._examples = _yield(self._recipe, accepted)
        self._steps: list[int] = []  # of the adapters that may become the expert

    def plan(self) -> Plan:
        stages = walk(self._recipe, has_labelled=bool(self._wanted.labelled))
        planned = tuple(PlannedStage(stage.name, sort_of(stage, self._recipe), self._work(stage)) for stage in stages)
        return Plan(planned, self._prompts, self._examples, self._is_measured)

    def _work(self, stage: Stage) -> Work:
        if stage.kind == "instructions":
            return Work(
                asked=self._prompts,
                read=self._texts.instruction_read(self._prompts),
                written=self._prompts * self._texts.reply,
            )
        if stage.kind == "tasks":
            return self._check()
        if stage.kind == "responses":
            return self._responses(stage)
        if stage.kind == "dataset":
            return Work(compared=self._rows(stage) * max(1, len(self._judging)))
        if stage.kind == "adapter":
            return Work(trained=self._trained(stage))
        if stage.kind == "trial":
            return self._trial()
        return self._metrics() if stage.kind == "metrics" else Work()

    @property
    def _judging(self) -> set[str]:
        """What a dataset must not hold."""
        split = self._wanted.split
        return {item.id for item in (*split.evaluation, *split.holdout)}

    def _check(self) -> Work:
        """Every seed, as new tasks are asked."""
        answers = len(self._wanted.split.training) * self._recipe.count_answers(0)
        written = answers * self._texts.response(writer=None)
        return Work(asked=answers, read=self._texts.check_read(), written=written)

    def _responses(self, stage: Stage) -> Work:
        if self._recipe.retrieval != "none":
            writer = stage.writers[0] if stage.writers else None
            fan, read = self._recipe.retrieval_top_k, self._texts.response_prompt(writer=writer)
            written = self._texts.response(writer=writer)
            return Work(
                asked=self._examples,
                read=self._examples * fan * (read + _PASSAGE_TOKENS),
                written=self._examples * fan * written,
            )
        works = [self._answers_of_base()] if self._recipe.responders_join or not stage.writers else []
        return sum([*works, *map(self._answers_of_adapter, stage.writers)], Work())

    def _answers_of_base(self) -> Work:
        samples = 1 if self._recipe.responders_join else self._recipe.response_samples
        asked = self._examples * self._recipe.response_draws * samples
        read = self._texts.response_read(self._examples, self._prompts, writer=None)
        return Work(asked=asked, read=read, written=asked * self._texts.response(writer=None))

    def _answers_of_adapter(self, writer: str) -> Work:
        asked = self._examples * self._recipe.response_samples
        if self._recipe.responders_join:
            read = self._examples * self._texts.prompt
        else:
            asked *= self._recipe.response_draws
            read = self._texts.response_read(self._examples, self._prompts, writer=writer)
        return Work(asked=asked, read=read, written=asked * self._texts.response(writer=writer))

    def _rows(self, stage: Stage) -> int:
        """Generated rows of a dataset, or of the dataset that an adapter learns."""
        return self._examples if stage.size is None else min(self._examples, stage.size)

    def _trained(self, stage: Stage) -> float:
        recipe, num_seeds = self._recipe, len(self._wanted.split.training)
        row, is_responder = self._texts.learned, stage.name.startswith("responder")
        kind = sort_of(stage, recipe).variant
        if kind == "dataset":
            rows, steps = _gone_through(recipe, num_seeds, self._rows(stage))
            self._steps.append(steps)
            return rows * row
        if kind == "steps":
            return max(self._steps, default=0) * recipe.batch_size * row
        if stage.name == LABELLED:
            return len(self._wanted.labelled) * recipe.epochs * row
        if is_responder and recipe.responders_join:
            row = self._texts.prompt + self._texts.answer
        return num_seeds * (recipe.responder_epochs if is_responder else recipe.epochs) * row

    def _trial(self) -> Work:
        items = len(self._wanted.split.holdout)
        written = self._texts.judged_answer(is_adapter=True)
        return Work(asked=items, read=items * self._texts.prompt, written=items * written)

    def _metrics(self) -> Work:
        """All lines, as ``app.pipeline.lines`` has them, other domains' items and the probe."""
        texts, items = self._texts, len(self._wanted.split.evaluation)
        base, expert = texts.judged_answer(is_adapter=False), texts.judged_answer(is_adapter=True)
        total = Work()
        for shots in self._recipe.evaluation_shots:
            bare, own = texts.evaluation_read(BARE, shots), texts.evaluation_read(ALPACA, shots)
            others = self._num_others if shots == 0 else 0
            adapters = 1 + self._wanted.has_champion + others
            total += Work(
                asked=items * (2 + adapters),
                read=bare + own * (1 + adapters),
                written=items * (2 * base + adapters * expert),
            )
        off = self._wanted.off_domain
        probe = 2 * sum(texts.count(text) for text in PROBE)
        return total + Work(asked=2 * off, read=2 * off * texts.prompt + probe, written=off * (base + expert))

    @property
    def _num_others(self) -> int:
        """Adapters of the job that are judged beside its expert."""
        stages = walk(self._recipe, has_labelled=bool(self._wanted.labelled))
        metrics = next(stage for stage in stages if stage.kind == "metrics")
        kinds = {stage.name: stage.kind for stage in stages}
        return sum(kinds[name] == "adapter" for name in metrics.reads) - 1


def _assumed_yield(recipe: Recipe) -> float:
    """Accepted items a prompt."""
    if recipe.prompt_style == "anchored":
        return ANCHORED_YIELD
    return LISTED_YIELD * (recipe.tasks_per_prompt - recipe.seeds_per_prompt)


def _yield(recipe: Recipe, accepted_a_prompt: float) -> tuple[int, int]:
    """Prompts, with those of the last wave that are sent in vain, and what is accepted of the replies."""
    enough = math.inf if accepted_a_prompt <= 0 else WAVE * math.ceil(recipe.pool_size / accepted_a_prompt / WAVE)
    prompts = int(min(recipe.max_prompts, enough)) if recipe.pool_size else 0
    return prompts, min(recipe.pool_size, round(prompts * accepted_a_prompt))


def _gone_through(recipe: Recipe, num_seeds: int, num_generated: int) -> tuple[float, int]:
    """Rows that a training reads, each as often as it does, and its steps."""
    share, rows = recipe.seed_share, num_seeds + num_generated
    if share is not None and num_seeds and num_generated:
        if num_seeds / rows < share < 1:
            an_epoch = math.ceil(num_generated / (recipe.batch_size * (1 - share)))
            return recipe.epochs * (num_generated + an_epoch * recipe.batch_size * share), an_epoch * recipe.epochs
        if share in (0, 1):
            rows = num_seeds if share else num_generated
    return float(rows * recipe.epochs), math.ceil(rows / recipe.batch_size) * recipe.epochs
