"""Seeds and examples → the training set: the seeds are part of it (paper App. D), each row once."""

from __future__ import annotations

from collections.abc import Sequence

from app.core.records import Example, Origin, Seed, TrainingRow
from app.pipeline.template import Template


def assemble_dataset(seeds: Sequence[Seed], examples: Sequence[Example]) -> list[Example]:
    """Seeds first, then what was generated; a question that occurs twice keeps its first answer."""
    rows = [seed_example(seed) for seed in seeds] + list(examples)
    first = {(row.instruction, row.input): row for row in reversed(rows)}
    return [row for row in rows if first[(row.instruction, row.input)] is row]


def seed_example(seed: Seed) -> Example:
    """A seed as a training row."""
    return Example(
        seed.id, seed.instruction, seed.input, seed.output, seed.task, Origin.SEED, (seed.id,), generator="user"
    )


def training_rows(dataset: Sequence[Example], template: Template) -> list[TrainingRow]:
    """What the trainer reads: the rendered prompt and the response it must learn."""
    return [TrainingRow(template.render(row.instruction, row.input), row.output) for row in dataset]
