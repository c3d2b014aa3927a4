"""Examines labelled examples and stores nothing: figures, findings, refusals, and on request a trial of prompts."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

from app.core.errors import InvalidInput, NotReady, Problem
from app.core.ports import Engine
from app.core.recipe import Recipe
from app.core.records import Seed
from app.pipeline.cut_texts import cut_texts
from app.pipeline.instructions import prompt_at
from app.pipeline.template import ALPACA
from app.services.request_checks import RawRequest, ReadRequest, RequestChecker
from app.services.seed_checks import in_order
from app.services.seed_findings import count_tasks, find_all
from app.services.seed_report import Finding, Lengths, SeedReport, Severity, Trial
from app.services.seed_trial import try_prompts

MAX_TRIAL_PROMPTS = 50
_COUNTED = 500  # items whose tokens are counted, and the longest texts beside: the whole of most uploads
_PROMPTS_COUNTED = 8


class Doctor:
    """The use case "what is there to know about these seeds?"."""

    def __init__(self, engine: Engine, *, checker: RequestChecker) -> None:
        self._engine, self._checker = engine, checker

    def examine(self, raw: RawRequest, *, num_prompts: int = 0) -> SeedReport:
        """``num_prompts``: how many of the job's prompts to try on the engine, at most ``MAX_TRIAL_PROMPTS``; 0: none.

        What is wrong with the content is told in the report. Raises TooLarge, InvalidInput for a trial without a
        domain or usable seeds, NotReady for a trial while the base is loading.
        """
        read = self._checker.read(raw)
        if raw.domain is None:  # only a job needs a name
            read = replace(read, problems=tuple(told for told in read.problems if told.field != "domain"))
        report = report_on(read, self._engine)
        if not num_prompts:
            return report
        seeds = read.split.training if read.split else tuple(read.seeds.records())
        _check_trial(read, seeds)
        about = (read.domain, read.description or "")
        trial = try_prompts(seeds, num_prompts, recipe=read.recipe, about=about, engine=self._engine)
        return replace(report, dry_run=trial, findings=(*_of_trial(read.recipe, trial), *report.findings))


def report_on(read: ReadRequest, engine: Engine) -> SeedReport:
    """The report of what was read, without a trial; asks the engine for lengths only."""
    tasks, lengths = count_tasks(read), _lengths(read, engine)
    return SeedReport(
        num_seeds=len(read.seeds.seeds),
        num_evaluation=len(read.evaluation.seeds),
        num_labelled=len(read.labelled.seeds),
        num_held_out=len(read.split.holdout) if read.split else 0,
        tasks=tasks,
        lengths=lengths,
        findings=tuple(find_all(read, tasks, lengths)),
        problems=tuple(in_order(read.problems)),
    )


def _check_trial(read: ReadRequest, seeds: tuple[Seed, ...]) -> None:
    problems = []
    if not read.domain:
        problems.append(Problem("domain", "is missing: the prompts of a dry run name it"))
    if not seeds:
        problems.append(Problem("seeds", "there is none that a dry run could show", source="seeds"))
    if problems:
        raise InvalidInput(problems)


def _lengths(read: ReadRequest, engine: Engine) -> Lengths:
    context = engine.base.context_tokens if engine.base is not None else None
    items = [*read.seeds.records(), *read.evaluation.records(), *read.labelled.records()]
    texts = sorted((ALPACA.render(item.instruction, item.input) + item.output for item in items), key=len)
    sample = texts[:: max(1, len(texts) // _COUNTED)]
    try:
        counted = [engine.count(text) + 1 for text in sample]  # the end-of-sequence token
        longest = [engine.count(text) + 1 for text in texts[-20:]]
        prompt, cut = _longest_prompt(read, engine), _cut_texts(read, engine)
    except NotReady:
        return Lengths(None, None, read.recipe.max_length, context)
    return Lengths(
        median=round(median(counted)) if counted else None,
        longest=max(longest) if longest else None,
        max_length=read.recipe.max_length,
        context=context,
        longest_prompt=prompt,
        cut_texts=cut,
    )


def _longest_prompt(read: ReadRequest, engine: Engine) -> int | None:
    """Tokens of the longest of the first prompts, with the room that the reply may take; None without seeds."""
    if read.split is None or not read.split.training:
        return None
    recipe, seeds = read.recipe, read.split.training
    once = recipe.model_copy(update={"replies_per_prompt": 1})
    prompts = [prompt_at(at, seeds, recipe=once, domain=read.domain).prompt for at in range(_PROMPTS_COUNTED)]
    return max(engine.count(prompt) for prompt in prompts) + recipe.instruction_max_new_tokens


def _cut_texts(read: ReadRequest, engine: Engine) -> dict[str, int]:
    """By task; of several domains' one counts."""
    seeds = read.split.training if read.split else ()
    return {task: tokens for (_, task), tokens in cut_texts(seeds, recipe=read.recipe, count=engine.count).items()}


def _of_trial(recipe: Recipe, trial: Trial) -> tuple[Finding, ...]:
    """What the trial says about the whole job."""
    findings = []
    if trial.accepted < recipe.min_yield * trial.written or not trial.accepted:
        told = f"{trial.accepted} of {trial.written} written items were accepted: such a job fails early (min_yield)"
        remedy = (
            "look at the samples of what was rejected; try prompt_style anchored, or a lower instruction_temperature"
        )
        findings.append(Finding(Severity.WARNING, "low_yield", told, remedy, count=trial.accepted))
    reached, wanted = trial.projection.examples, trial.projection.wanted
    if trial.accepted and reached < wanted:
        told = f"at this yield max_prompts ({recipe.max_prompts:,}) lead to about {reached:,} of {wanted:,} examples"
        findings.append(
            Finding(Severity.WARNING, "too_few_examples", told, "raise max_prompts, or ask for fewer examples")
        )
    return tuple(findings)
