"""Seeds and examples → the training set: the seeds are part of it (paper App. D)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from app.core.records import Example, Origin, Seed
from app.pipeline.bench import ROWS, Bench
from app.pipeline.rows import from_row, to_row


def make_dataset(bench: Bench, *, size: int | None = None) -> None:
    """Seeds and examples in one training set; ``size``: of the examples only the first so many."""
    examples = [from_row(Example, row) for row in islice(bench.product("responses"), size)]
    dataset = assemble_dataset(bench.split.training, examples)
    bench.write(ROWS, map(to_row, dataset))
    bench.progress(len(dataset), len(dataset))
    held = "held-out seeds" if bench.split.is_holdout else "uploaded items"
    if not examples and bench.recipe.pool_size:
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
