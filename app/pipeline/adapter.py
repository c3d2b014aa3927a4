"""The dataset → an adapter: trained by the engine, with its template and its losses beside it (paper App. A, C)."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace

from app.core.errors import Fault, StageFailed
from app.core.recipe import Recipe
from app.core.records import Example, Origin, TrainingPlan, TrainingStep
from app.pipeline.bench import Bench
from app.pipeline.rows import from_row, to_row
from app.pipeline.template import ALPACA
from app.pipeline.training_rows import seed_example, training_rows

TRAINING, REPORT, TEMPLATE = "training.jsonl", "report.json", "template.json"
_TIMELESS = ("step", "epoch", "loss", "learning_rate", "tokens")  # of a step: the same for the same recipe


def make_adapter(bench: Bench) -> None:
    """Learn the dataset; in ``continue`` mode on from the adapter of the round before."""
    shown = [row for row in _learned(bench) if row.origin is Origin.SEED]  # as people left them in a review
    before = next(iter(bench.adapters().values()), None)
    start = str(before.folder) if before is not None else None
    _learn(bench, _learned(bench), TrainingPlan(start=start, seed_share=bench.recipe.seed_share), shown=shown)


def make_adapter_of_seeds(bench: Bench) -> None:
    """Learn the seeds alone, by the same recipe."""
    _learn(bench, _seeds(bench), TrainingPlan())


def make_responder(bench: Bench, *, number: int) -> None:
    """Learn the seeds alone, to answer new tasks; each ``number`` (from 1) begins and shuffles differently."""
    recipe = bench.recipe
    changes = {"seed": (recipe.seed + number) % 2**31, "epochs": recipe.responder_epochs}
    if recipe.responders_join:  # they are shown no seeds when they answer
        changes["training_shots"] = 0
    _learn(bench, _seeds(bench), TrainingPlan(), recipe=recipe.model_copy(update=changes))


def make_adapter_of_seeds_by_steps(bench: Bench) -> None:
    """Learn the seeds alone, for as many optimizer steps as the expert took."""
    name = next(name for name, place in bench.adapters().items() if place == bench.expert())
    report = next(bench.product(name, REPORT))
    _learn(bench, _seeds(bench), TrainingPlan(max_steps=report["num_steps"]))


def make_adapter_of_labelled(bench: Bench) -> None:
    """Learn the user's own labelled rows: what supervision would reach."""
    _learn(bench, map(seed_example, bench.labelled), TrainingPlan())


def _learned(bench: Bench) -> Iterable[Example]:
    return (from_row(Example, row) for row in bench.product("dataset"))


def _seeds(bench: Bench) -> list[Example]:
    return list(map(seed_example, bench.split.training))


def _learn(
    bench: Bench,
    examples: Iterable[Example],
    plan: TrainingPlan,
    *,
    recipe: Recipe | None = None,
    shown: Sequence[Example] | None = None,
) -> None:
    """The product is a PEFT folder with its template and its losses. ``shown``: before some rows; None: the seeds."""
    recipe = recipe or bench.recipe
    for left in bench.folder.iterdir():  # what a killed attempt left; it goes on from its checkpoint
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    steps: list[TrainingStep] = []

    def on_step(step: TrainingStep) -> None:
        if not math.isfinite(step.loss):
            told = f"the loss is no number any more at step {step.step}; lower recipe.learning_rate"
            raise StageFailed(bench.stage.name, told, fault=Fault.USER, param="recipe.learning_rate")
        steps.append(step)
        speed = step.tokens / step.seconds if step.seconds else None
        detail = {"loss": step.loss, "learning_rate": step.learning_rate, "tokens_per_second": speed}
        counts = {"tokens": step.tokens, "memory_bytes": step.memory_bytes}
        bench.progress(step.step, step.num_steps, detail={**detail, **counts})
        if step.step % max(1, step.num_steps // 50) == 0:
            bench.tell("training_step", f"step {step.step}: loss {step.loss:.3f}", data=to_row(step))
        if step.step % bench.recipe.checkpoint_steps == 0:  # the engine has just written one
            bench.saved()

    report = bench.engine.train(
        training_rows(
            examples, shown=_seeds(bench) if shown is None else shown, recipe=recipe, count=bench.engine.count
        ),
        recipe=recipe,
        folder=bench.folder,
        on_step=on_step,
        plan=plan,
        checkpoints=bench.checkpoints,
    )
    bench.write(TEMPLATE, [ALPACA.to_dict()])
    bench.write(TRAINING, [{key: row[key] for key in _TIMELESS} for row in map(to_row, steps)])
    bench.write(REPORT, [to_row(replace(report, seconds=0.0, peak_bytes=0))])
    bench.tell(
        "training_done",
        f"loss {report.first_loss:.3f} → {report.last_loss:.3f}: {report.num_steps} steps, {report.num_rows} rows",
        data=to_row(report),
        is_warning=report.num_dropped > 0,
    )
