"""``python -m benchmarks.pipeline.generation``: accepted examples a minute, ours and a plain loop's.

Both carry out the pipeline's own stages, instructions and responses, on the bundled finance seeds: the same prompts,
limits, stop texts and filters, on the same base in the same number format. Ours asks the engine that serves; the plain
loop calls transformers' ``generate`` for one prompt at a time. Each runs in a process of its own; the time is of the
stages, without loading. Processor time is told beside the clock's: on a machine that has other work it is the one to
compare. Memory is the most that was in use: of the device on CUDA, else of the process. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from app.bootstrap import base_folder, make_engine
from app.core.ports import Engine
from app.core.presets import make_recipe
from app.core.records import Seed
from app.engine.base import BaseOptions, load_base
from app.pipeline.bench import Stage
from app.pipeline.holdout import Split
from app.pipeline.instructions import make_instructions
from app.pipeline.responses import make_responses
from app.settings import Settings
from benchmarks.pipeline.plain import PlainLoop
from benchmarks.pipeline.stages import FolderBench

KINDS = ("ours", "plain")
DOMAIN = "finance"
_PRESET = make_recipe({"preset": "quick"})
SEEDS = Path(__file__).resolve().parents[2] / "examples" / DOMAIN / "seeds.jsonl"
INSTRUCTIONS = Stage("instructions", "instructions", (), make_instructions)
RESPONSES = Stage("responses", "responses", ("instructions",), make_responses)


@dataclass(frozen=True, slots=True)
class Found:
    """What one kind of generating did."""

    kind: str
    base: str
    prompts: int
    candidates: int
    accepted: int
    instruction_seconds: float
    response_seconds: float
    instruction_cpu_seconds: float  # of the processor, all threads together
    response_cpu_seconds: float
    peak_bytes: int

    @property
    def per_minute(self) -> float:
        """Accepted examples."""
        return 60 * self.accepted / (self.instruction_seconds + self.response_seconds)

    @property
    def per_cpu_minute(self) -> float:
        """Accepted examples a minute of the processor."""
        return 60 * self.accepted / (self.instruction_cpu_seconds + self.response_cpu_seconds)


def summary(found: Sequence[Found]) -> dict[str, Any]:
    """The last line; the ratios are None unless both kinds were measured and accepted something."""
    by_kind = {one.kind: one for one in found}
    ours, plain = (by_kind.get(kind) for kind in KINDS)
    both = (ours, plain) if ours and plain and plain.accepted else None
    return {
        "bench": "generation",
        **{f"{kind}_per_minute": round(one.per_minute, 2) for kind, one in by_kind.items()},
        **{f"{kind}_per_cpu_minute": round(one.per_cpu_minute, 2) for kind, one in by_kind.items()},
        **{f"{kind}_peak_bytes": one.peak_bytes for kind, one in by_kind.items()},
        "ratio": round(both[0].per_minute / both[1].per_minute, 2) if both else None,
        "cpu_ratio": round(both[0].per_cpu_minute / both[1].per_cpu_minute, 2) if both else None,
        "found": [asdict(one) for one in found],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a kind."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline.generation", description=__doc__)
    parser.add_argument("--prompts", type=int, default=64, help="instruction prompts of each kind")
    parser.add_argument(
        "--replies-per-prompt", type=int, default=_PRESET.replies_per_prompt, help="how often each prompt is asked"
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="which take part")
    parser.add_argument("--alone", choices=KINDS, help="measure this kind in this very process")
    options = parser.parse_args(arguments)
    if options.alone:
        alone = measure(options.alone, num_prompts=options.prompts, replies_per_prompt=options.replies_per_prompt)
        print(json.dumps(asdict(alone)))
        return 0
    found = []
    for kind in options.kinds:
        found.append(_measured_apart(kind, options.prompts, options.replies_per_prompt))
        one = found[-1]
        print(
            f"{kind:<6} {one.per_minute:8.1f} accepted a minute: {one.prompts} prompts, {one.candidates} items, "
            f"{one.accepted} accepted, {one.instruction_seconds:.1f} + {one.response_seconds:.1f} s "
            f"({one.instruction_cpu_seconds:.1f} + {one.response_cpu_seconds:.1f} s of the processor), "
            f"{one.peak_bytes / 1e6:,.0f} MB; {one.base}",
            flush=True,
        )
    print(json.dumps(summary(found)), flush=True)
    return 0


def measure(kind: str, *, num_prompts: int, replies_per_prompt: int) -> Found:
    """Both stages, in this process."""
    knobs = {"num_examples": 1_000_000, "max_prompts": num_prompts, "min_yield": 0.0, "responders": 0}
    recipe = _PRESET.model_copy(update={**knobs, "replies_per_prompt": replies_per_prompt})
    with closing(_Engine(kind)) as engine, tempfile.TemporaryDirectory() as folder:
        base = engine.engine.wait_ready()
        bench = FolderBench(Path(folder), recipe, DOMAIN, _split(), engine.engine, INSTRUCTIONS)
        started = _Clocks.now()
        candidates = bench.run(INSTRUCTIONS)
        middle = _Clocks.now()
        rows = bench.run(RESPONSES)
        ended = _Clocks.now()
    return Found(
        kind=kind,
        base=f"{base.name} ({base.quantization}, {base.dtype}, {base.device})",
        prompts=num_prompts,
        candidates=len(candidates),
        accepted=len(rows),
        instruction_seconds=middle.wall - started.wall,
        response_seconds=ended.wall - middle.wall,
        instruction_cpu_seconds=middle.cpu - started.cpu,
        response_cpu_seconds=ended.cpu - middle.cpu,
        peak_bytes=_peak_bytes(base.device),
    )


class _Clocks(NamedTuple):
    """Seconds, each since some moment; ``cpu`` of the process with all its threads."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> _Clocks:
        return cls(time.monotonic(), time.process_time())


class _Engine:
    """The service's engine as its jobs have it, or the plain loop."""

    def __init__(self, kind: str) -> None:
        settings = Settings()
        self._real = make_engine(settings, num_slots=1, max_waiting=None) if kind == "ours" else None
        self.engine = self._real or cast(Engine, _plain(settings))

    def close(self) -> None:
        if self._real is not None:
            self._real.close()


def _plain(settings: Settings) -> PlainLoop:
    options = BaseOptions(
        name=settings.base,
        hub_id=settings.base,
        quantization=settings.quantization,
        dtype=settings.dtype,
        device=settings.device,
        threads=settings.threads,
    )
    return PlainLoop(load_base(options, base_folder(settings)))


def _split() -> Split:
    rows = map(json.loads, SEEDS.read_text(encoding="utf-8").splitlines())
    seeds = tuple(Seed(row["task"], row["instruction"], row["input"], row["output"]) for row in rows)
    return Split(seeds, (), is_holdout=False)


def _measured_apart(kind: str, num_prompts: int, replies_per_prompt: int) -> Found:
    """In a process of its own, so that neither finds the other's memory."""
    sizes = ["--prompts", str(num_prompts), "--replies-per-prompt", str(replies_per_prompt)]
    command = [sys.executable, "-m", "benchmarks.pipeline.generation", "--alone", kind, *sizes]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Found(**json.loads(done.stdout.splitlines()[-1]))


def _peak_bytes(device: str) -> int:
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    sys.exit(main())
