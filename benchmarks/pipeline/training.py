"""``python -m benchmarks.pipeline.training``: tokens a second of training, ours and transformers' Trainer's.

Both learn the same rows (the bundled finance seeds) on the same loaded base with the same LoRA, batch size, epochs,
learning rate, clipping and response-only loss. The Trainer is as a user finds it: PEFT's adapters as ``get_peft_model``
makes them, batches as they are shuffled, padded by ``DataCollatorForSeq2Seq``; on CUDA it has the paged AdamW too.
Tokens are the rows' own, padding not counted; the time is of the training loop, without loading. Each runs in a process
of its own, turn about. Memory is the most that was in use: of the device on CUDA, else of the process. ``mean_loss``
is over all steps: it says that both learned the same. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from app.bootstrap import base_folder
from app.core.presets import PRESETS, make_recipe
from app.core.recipe import Recipe
from app.core.records import TrainingRow, TrainingStep
from app.engine.base import BaseOptions, LoadedBase, load_base
from app.engine.memory import peak_bytes
from app.engine.training import encode_row, train_adapter
from app.engine.training_start import lora_config
from app.pipeline.template import ALPACA
from app.settings import Settings

KINDS = ("ours", "trainer")
LEAST_RATIO = 1.5
SEEDS = Path(__file__).resolve().parents[2] / "examples" / "finance" / "seeds.jsonl"


@dataclass(frozen=True, slots=True)
class Found:
    """What one training did."""

    kind: str
    base: str
    tokens: int
    steps: int
    seconds: float
    mean_loss: float
    peak_bytes: int

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a training; a bar that is missed is a finding, not a failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline.training", description=__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="quick", help="the recipe")
    parser.add_argument("--rows", type=int, default=90, help="of the seeds, so many")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each kind; the median counts")
    parser.add_argument("--trainer-rows", type=int, default=8, help="rows that pass together in the Trainer, at most")
    parser.add_argument("--alone", choices=KINDS, help="measure this kind in this very process")
    options = parser.parse_args(arguments)
    recipe = make_recipe({"preset": options.preset, "epochs": options.epochs})
    if options.alone:
        rows = read_rows()[: options.rows]
        one = measure(options.alone, _base(), rows, recipe=recipe, trainer_rows=options.trainer_rows)
        print(json.dumps(asdict(one)))
        return 0
    found = []
    for turn in range(options.rounds):
        for kind in KINDS if turn % 2 == 0 else reversed(KINDS):
            found.append(_measured_apart(kind, options))
            print(_line(found[-1]), flush=True)
    print(json.dumps(summary(found)), flush=True)
    return 0


def summary(found: Sequence[Found]) -> dict[str, Any]:
    """The last line: medians over the rounds."""
    by_kind = {kind: [one for one in found if one.kind == kind] for kind in KINDS}
    speeds = {kind: median(one.speed for one in ones) for kind, ones in by_kind.items()}
    ratio = speeds["ours"] / speeds["trainer"]
    return {
        "bench": "training",
        **{f"{kind}_tokens_per_second": round(speed, 1) for kind, speed in speeds.items()},
        **{f"{kind}_peak_bytes": max(one.peak_bytes for one in ones) for kind, ones in by_kind.items()},
        "ratio": round(ratio, 2),
        "bars": {f"ratio >= {LEAST_RATIO}": ratio >= LEAST_RATIO},
        "found": [asdict(one) for one in found],
    }


def read_rows() -> list[TrainingRow]:
    """The seeds as a job renders them."""
    rows = map(json.loads, SEEDS.read_text(encoding="utf-8").splitlines())
    return [TrainingRow(ALPACA.render(row["instruction"], row["input"]), row["output"]) for row in rows]


def measure(kind: str, base: LoadedBase, rows: Sequence[TrainingRow], *, recipe: Recipe, trainer_rows: int) -> Found:
    """One training, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        if kind == "ours":
            tokens, losses, seconds = _ours(base, rows, recipe, Path(folder))
        else:
            tokens, losses, seconds = _trainer(base, rows, recipe, Path(folder), most_rows=trainer_rows)
    info = base.info
    return Found(
        kind=kind,
        base=f"{info.name} ({info.quantization}, {info.dtype}, {info.device})",
        tokens=tokens,
        steps=len(losses),
        seconds=seconds,
        mean_loss=round(sum(losses) / len(losses), 4),
        peak_bytes=peak_bytes(base.device),
    )


def _ours(
    base: LoadedBase, rows: Sequence[TrainingRow], recipe: Recipe, folder: Path
) -> tuple[int, list[float], float]:
    steps: list[TrainingStep] = []
    report = train_adapter(base, rows, recipe=recipe, folder=folder, on_step=steps.append)
    return report.tokens, [step.loss for step in steps], report.seconds


def _trainer(
    base: LoadedBase, rows: Sequence[TrainingRow], recipe: Recipe, folder: Path, *, most_rows: int
) -> tuple[int, list[float], float]:
    from peft import get_peft_model
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    warnings.simplefilter("ignore")
    encoded = [one for one in (encode_row(base, row) for row in rows) if len(one.ids) <= recipe.max_length]
    data = [{"input_ids": row.ids, "labels": [-100] * row.num_prompt + row.ids[row.num_prompt :]} for row in encoded]
    together = min(most_rows, recipe.batch_size)
    is_cuda = base.device.type == "cuda"
    settings = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=together,
        gradient_accumulation_steps=max(1, recipe.batch_size // together),
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup_fraction,  # below 1: a share
        max_grad_norm=recipe.max_grad_norm,
        optim="paged_adamw_8bit" if is_cuda else "adamw_torch",
        use_cpu=not is_cuda,
        seed=recipe.seed,
        logging_steps=1,
        logging_strategy="steps",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    base.tokenizer.pad_token = base.tokenizer.pad_token or base.tokenizer.eos_token
    trainer = Trainer(
        model=get_peft_model(base.model, lora_config(recipe)),
        args=settings,
        train_dataset=data,
        data_collator=DataCollatorForSeq2Seq(base.tokenizer),
    )
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return recipe.epochs * sum(len(row.ids) for row in encoded), losses, seconds


def _base() -> LoadedBase:
    settings = Settings()
    options = BaseOptions(
        name=settings.base,
        hub_id=settings.base,
        quantization=settings.quantization,
        dtype=settings.dtype,
        device=settings.device,
        threads=settings.threads,
    )
    return load_base(options, base_folder(settings))


def _measured_apart(kind: str, options: argparse.Namespace) -> Found:
    """In a process of its own, so that neither finds the other's memory."""
    command = [sys.executable, "-m", "benchmarks.pipeline.training", "--alone", kind]
    for knob in ("preset", "rows", "epochs", "trainer_rows"):
        command += [f"--{knob.replace('_', '-')}", str(getattr(options, knob))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Found(**json.loads(done.stdout.splitlines()[-1]))


def _line(one: Found) -> str:
    return (
        f"{one.kind:<8} {one.speed:8.1f} tokens/s: {one.tokens:,} tokens, {one.steps} steps, {one.seconds:.1f} s, "
        f"mean loss {one.mean_loss:.3f}, {one.peak_bytes / 1e6:,.0f} MB; {one.base}"
    )


if __name__ == "__main__":
    sys.exit(main())
