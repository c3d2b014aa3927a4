"""What the parts of the pipeline benchmark told → bars. Knows their last lines only, and runs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LEAST_GENERATION, LEAST_TRAINING = 10.0, 1.5  # ratios: ours over a plain loop, ours over transformers' Trainer
MOST_NOVELTY_MS, NOVELTY_POOL = 5.0, 5_000  # an item, at that many texts

Told = Mapping[str, Mapping[str, Any]]


def bars(told: Told) -> dict[str, bool | None]:
    """Met or missed; None where what it takes was not measured."""
    return {
        f"generation_ratio >= {LEAST_GENERATION}": _at_least(told, "generation", LEAST_GENERATION),
        f"training_ratio >= {LEAST_TRAINING}": _at_least(told, "training", LEAST_TRAINING),
        f"novelty_ms at {NOVELTY_POOL} <= {MOST_NOVELTY_MS}": _novelty(told.get("novelty", {})),
    }


def summary(told: Told, *, missing: Mapping[str, str]) -> dict[str, Any]:
    """The last line. ``missing``: parts that did not end well, and why."""
    return {"bench": "pipeline", "bars": bars(told), "missing": dict(missing), **told}


def _at_least(told: Told, part: str, least: float) -> bool | None:
    ratio = told.get(part, {}).get("ratio")
    return None if ratio is None else ratio >= least


def _novelty(told: Mapping[str, Any]) -> bool | None:
    found = [size["ms"] for size in told.get("sizes", ()) if size["pool"] == NOVELTY_POOL]
    return found[0] <= MOST_NOVELTY_MS if found else None
