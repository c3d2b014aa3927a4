"""Opens engines and counts what they still hold."""

from __future__ import annotations

import gc
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from app.core.records import GenerationRequest
from app.engine.base import BaseOptions
from app.engine.engine import EngineSizes, TorchEngine
from app.engine.sequences import Sequence

CONTEXT = 1024
SECONDS = 120.0  # longer than any answer can take; only a test that fails waits for it
_OPTIONS = BaseOptions(name="tiny", hub_id="tiny/random", dtype="float32", device="cpu")


def open_engine(folder: Path, **sizes: int) -> TorchEngine:
    """A real engine, ready."""
    settings: dict[str, Any] = {"num_slots": 2, "max_rank": 4, "max_batch": 16, **sizes}
    engine = TorchEngine(_OPTIONS, lambda: folder, EngineSizes(**settings))
    engine.wait_ready()
    return engine


def count_objects() -> Counter[str]:
    """Requests that this process still knows of."""
    gc.collect()
    kinds = {Sequence: "sequences", Future: "futures"}
    return Counter(kinds[type(thing)] for thing in gc.get_objects() if type(thing) in kinds)


def let_go(engine: TorchEngine) -> None:
    """Detach everything, and wait for the step after which it is gone."""
    for adapter in list(engine._proofs):
        engine.detach(adapter)
    engine.submit(GenerationRequest("the firm", max_new_tokens=3, ignore_end=True)).result(SECONDS)


def leftovers(engine: TorchEngine) -> dict[str, int]:
    """What is held though nothing is asked or attached, by kind; empty if all was given back."""
    state, batcher = engine.state(), engine._batching
    scheduler = batcher.scheduler
    counts = {
        "running": state.running,
        "waiting": state.waiting,
        "bytes of cache": state.cache_bytes,
        "rows": len(batcher._bands),
        "prompts half computed": int(batcher._prefill is not None),
        "open futures": len(engine._open),
        "sequences of the scheduler": len(scheduler._active) + len(scheduler._running) + len(scheduler),
        "adapters": len(state.experts) - 1,
        "bytes of adapters": state.host_bytes,
        "holds": len(engine._host._holds),
        "pins": len(engine._host._pinned) + scheduler.num_pinned,
        "slots": state.num_slots - len(engine._table._free),
        "slots with weights": sum(rank > 0 for rank in engine._bank.segments.ranks),
        "adapters' prefixes": len(batcher._prefixes._roots.keys() - {None}),
        "bytes of prefixes too many": max(0, state.prefix_bytes - state.prefix_budget),
    }
    return {kind: count for kind, count in counts.items() if count}
