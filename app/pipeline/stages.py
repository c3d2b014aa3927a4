"""The walk: the stages of a job and their order. The only place that knows which stage follows which.

    seeds ─► instructions ─► responses ─► dataset ─► adapter ─► metrics ─► gate ─► served expert

A stage reads what earlier ones made, works through its own file of this package and writes its product; a killed
stage finds its unfinished files again.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.core.errors import Fault, StageFailed
from app.core.records import Answer, Candidate, Comparison, Example, Rejection, Reply, TrainingStep
from app.pipeline import instructions, metrics, responses
from app.pipeline.acceptance import Acceptance
from app.pipeline.bench import ROWS, Bench
from app.pipeline.dataset import assemble_dataset, training_rows
from app.pipeline.gate import decide
from app.pipeline.prompts import Fits
from app.pipeline.rows import from_row, to_row
from app.pipeline.template import ALPACA

REPLIES, ANSWERS, REJECTIONS, COMPARISONS, TRAINING, REPORT, TEMPLATE = (
    "replies.jsonl",
    "answers.jsonl",
    "rejections.jsonl",
    "comparisons.jsonl",
    "training.jsonl",
    "report.json",
    "template.json",
)


@dataclass(frozen=True, slots=True)
class Stage:
    """One step: its name (also the kind of its artifact), the stages it reads, and its work."""

    name: str
    reads: tuple[str, ...]
    work: Callable[[Bench], None]


def make_instructions(bench: Bench) -> None:
    """Raw replies wave by wave; what is accepted follows from them."""
    recipe, seeds = bench.recipe, bench.split.training
    acceptance = Acceptance(seeds, recipe=recipe)
    replies = [from_row(Reply, row) for row in bench.kept(REPLIES, unit=instructions.PROMPTS_PER_WAVE)]
    for reply in replies:
        acceptance.read(reply)
    bench.progress(len(acceptance.accepted), recipe.num_examples)
    waves = instructions.write_replies(
        seeds,
        recipe=recipe,
        domain=bench.domain,
        description=bench.description,
        start=len(replies),
        generator=bench.engine,
        fits=_fits(bench, recipe.instruction_max_new_tokens),
    )
    while not acceptance.is_full and (wave := next(waves, None)):
        bench.append(REPLIES, map(to_row, wave))
        replies += wave
        for reply in wave:
            acceptance.read(reply)
        bench.progress(len(acceptance.accepted), recipe.num_examples)
    bench.write(ROWS, map(to_row, acceptance.accepted))
    bench.write(REJECTIONS, map(to_row, acceptance.rejected))
    _tell_yield(bench, acceptance, replies)


def make_responses(bench: Bench) -> None:
    """An answer to every instruction; those that cannot be learned from are dropped with the reason."""
    candidates = [from_row(Candidate, row) for row in bench.product("instructions")]
    answers = [from_row(Answer, row) for row in bench.kept(ANSWERS, unit=responses.RESPONSES_PER_WAVE)]
    bench.progress(len(answers), len(candidates))
    for wave in responses.write_answers(
        candidates,
        bench.split.training,
        recipe=bench.recipe,
        domain=bench.domain,
        description=bench.description,
        start=len(answers),
        generator=bench.engine,
        fits=_fits(bench, bench.recipe.response_max_new_tokens),
    ):
        bench.append(ANSWERS, map(to_row, wave))
        answers += wave
        bench.progress(len(answers), len(candidates))
    judged = [responses.judge_answer(*pair) for pair in zip(candidates, answers, strict=True)]
    bench.write(ROWS, [to_row(result) for result in judged if isinstance(result, Example)])
    rejected = [result for result in judged if isinstance(result, Rejection)]
    bench.write(REJECTIONS, map(to_row, rejected))
    counts = {"kept": len(judged) - len(rejected), "rejected": _reasons(rejected)}
    bench.tell("responses_judged", f"{counts['kept']} of {len(judged)} responses are kept", data=counts)


def make_dataset(bench: Bench) -> None:
    """Seeds and examples in one training set."""
    examples = [from_row(Example, row) for row in bench.product("responses")]
    dataset = assemble_dataset(bench.split.training, examples)
    bench.write(ROWS, map(to_row, dataset))
    bench.progress(len(dataset), len(dataset))
    held = "held-out seeds" if bench.split.is_holdout else "uploaded items"
    if not examples and bench.recipe.num_examples:
        told = f"nothing that was generated could be used: the expert learns from {len(dataset)} seeds alone"
        bench.tell("seeds_alone", told, data={"seeds": len(dataset)}, is_warning=True)
    bench.tell(
        "dataset_ready",
        f"{len(dataset)} training rows, {len(bench.split.training)} of them seeds; "
        f"evaluation on {len(bench.split.evaluation)} {held}",
        data={
            "rows": len(dataset),
            "seeds": len(bench.split.training),
            "evaluation": len(bench.split.evaluation),
            "held_out": [seed.id for seed in bench.split.evaluation] if bench.split.is_holdout else [],
        },
    )


def make_adapter(bench: Bench) -> None:
    """Learn the dataset; the product is a PEFT folder with its template and its losses."""
    for left in bench.folder.iterdir():  # a training that was killed begins anew
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    dataset = [from_row(Example, row) for row in bench.product("dataset")]
    steps: list[TrainingStep] = []

    def on_step(step: TrainingStep) -> None:
        if not math.isfinite(step.loss):
            told = f"the loss is no number any more at step {step.step}; lower recipe.learning_rate"
            raise StageFailed("adapter", told, fault=Fault.USER, param="recipe.learning_rate")
        steps.append(step)
        bench.progress(step.step, step.num_steps)
        if step.step % max(1, step.num_steps // 50) == 0:
            bench.tell("training_step", f"step {step.step}: loss {step.loss:.3f}", data=to_row(step))

    report = bench.engine.train(
        training_rows(dataset, ALPACA), recipe=bench.recipe, folder=bench.folder, on_step=on_step
    )
    bench.write(TEMPLATE, [ALPACA.to_dict()])
    timeless = ("step", "epoch", "loss", "learning_rate", "tokens")  # the same for the same recipe
    bench.write(TRAINING, [{key: row[key] for key in timeless} for row in map(to_row, steps)])
    bench.write(REPORT, [{key: value for key, value in to_row(report).items() if key != "seconds"}])
    bench.tell(
        "training_done",
        f"loss {report.first_loss:.3f} → {report.last_loss:.3f}: {report.num_steps} steps, {report.num_rows} rows",
        data=to_row(report),
        is_warning=report.num_dropped > 0,
    )


def make_metrics(bench: Bench) -> None:
    """Base and expert answer the evaluation items through the engine that serves, and are scored."""
    adapter, folder = bench.adapter()
    bench.engine.attach(adapter, folder)
    items = bench.split.evaluation
    pairs = [
        (from_row(Answer, row["base"]), from_row(Answer, row["expert"]))
        for row in bench.kept(ANSWERS, unit=metrics.ITEMS_PER_WAVE)
    ]
    bench.progress(len(pairs), len(items))
    for wave in metrics.write_answers(
        items, adapter=adapter, template=ALPACA, recipe=bench.recipe, start=len(pairs), generator=bench.engine
    ):
        bench.append(ANSWERS, [{"base": to_row(base), "expert": to_row(expert)} for base, expert in wave])
        pairs += wave
        bench.progress(len(pairs), len(items))
    judged = [
        metrics.judge(item.id, item.task, item.output, base_text=base.text, expert_text=expert.text)
        for item, (base, expert) in zip(items, pairs, strict=True)
    ]
    bench.write(ROWS, map(to_row, judged))
    bench.write(COMPARISONS, map(to_row, metrics.compare(judged, seed=bench.recipe.seed)))


def make_verdict(bench: Bench) -> None:
    """Decide whether the adapter becomes its domain's champion."""
    comparisons = [from_row(Comparison, row) for row in bench.product("metrics", COMPARISONS)]
    verdict = decide(comparisons, promotion=bench.recipe.promotion)
    bench.write(ROWS, [to_row(verdict)])
    bench.progress(1, 1)
    is_warning = verdict.decision != "promote"
    bench.tell("gate_decided", f"{verdict.decision}: {verdict.reason}", data=to_row(verdict), is_warning=is_warning)


WALK: tuple[Stage, ...] = (
    Stage("instructions", (), make_instructions),
    Stage("responses", ("instructions",), make_responses),
    Stage("dataset", ("responses",), make_dataset),
    Stage("adapter", ("dataset",), make_adapter),
    Stage("metrics", ("adapter",), make_metrics),
    Stage("gate", ("metrics",), make_verdict),
)
STAGES: tuple[str, ...] = tuple(stage.name for stage in WALK)


def _fits(bench: Bench, max_new_tokens: int) -> Fits:
    """Whether the base can read a prompt and still write so many tokens."""
    room = bench.engine.wait_ready().context_tokens - max_new_tokens
    return lambda prompt: bench.engine.count(prompt) <= room


def _tell_yield(bench: Bench, acceptance: Acceptance, replies: Sequence[Reply]) -> None:
    num_accepted, rejected = len(acceptance.accepted), acceptance.rejected
    data = {
        "prompts": len(replies),
        "tokens": sum(reply.num_tokens for reply in replies),
        "accepted": num_accepted,
        "rejected": _reasons(rejected),
    }
    told = f"{num_accepted} of {num_accepted + len(rejected)} written items accepted from {len(replies)} prompts"
    bench.tell("instructions_judged", told, data=data, is_warning=not acceptance.is_full)


def _reasons(rejected: Sequence[Rejection]) -> dict[str, int]:
    return dict(Counter(rejection.reason for rejection in rejected).most_common())
