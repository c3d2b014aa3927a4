"""Seeds and examples → the training set: the seeds are part of it (paper App. D)."""

from __future__ import annotations

from collections.abc import Sequence

from app.core.records import Example, Origin, Seed, TrainingRow
from app.pipeline.template import Template


def assemble_dataset(seeds: Sequence[Seed], examples: Sequence[Example]) -> list[Example]:
    """Every seed, then what was generated, but no question that a seed or an earlier example asks."""
    rows = [seed_example(seed) for seed in seeds]
    asked = {(row.instruction, row.input) for row in rows}
    for example in examples:
        if (example.instruction, example.input) not in asked:
            asked.add((example.instruction, example.input))
            rows.append(example)
    return rows


def seed_example(seed: Seed) -> Example:
    """A seed as a training row."""
    return Example(
        seed.id, seed.instruction, seed.input, seed.output, seed.task, Origin.SEED, (seed.id,), generator="user"
    )


def training_rows(dataset: Sequence[Example], template: Template) -> list[TrainingRow]:
    """What the trainer reads: the rendered prompt and the response it must learn."""
    return [TrainingRow(template.render(row.instruction, row.input), row.output) for row in dataset]
