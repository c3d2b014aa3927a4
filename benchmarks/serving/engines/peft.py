"""PEFT in a process of its own, without HTTP: ``set_adapter`` one request after another, and mixed static batches."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

import httpx
import psutil

from app.processes import Program
from benchmarks.serving.load import Sample
from benchmarks.serving.processes import free_port, running, wait_ready
from benchmarks.serving.target import Kit, Target, Variant
from benchmarks.serving.workload import BASE, MIXES, Point, Request

SERIAL, BATCH = "PEFT serial", "PEFT batch"


@dataclass(frozen=True, slots=True)
class Peft:
    """The plain library, as one would script it."""

    kit: Kit
    name: str = "PEFT"

    def missing(self) -> str | None:
        return None if find_spec("peft") else "pip install peft"

    def variants(self) -> tuple[Variant, ...]:
        waits = {"GOMP_SPINCOUNT": "20000"}
        return tuple(Variant(dtype, "", waits) for dtype in ("float32", "bfloat16"))

    @contextmanager
    def serve(self, variant: Variant) -> Iterator[tuple[Target, ...]]:
        port, threads = free_port(), str(self.kit.threads)
        experts = [str(self.kit.adapters[name]) for name in MIXES["mixed"]]
        module = "benchmarks.serving.peft_worker"
        command = (sys.executable, "-m", module, str(port), variant.dtype, threads, str(self.kit.model), *experts)
        program = Program(self.name, command, self.kit.folder / "logs" / f"peft-{variant.dtype}.log")
        with running(program, environment={"OMP_NUM_THREADS": threads, **variant.environment}) as process:
            url = f"http://127.0.0.1:{port}"
            wait_ready(program, process, url)
            yield PeftTarget(SERIAL, process, url), PeftTarget(BATCH, process, url)


@dataclass(frozen=True, slots=True)
class PeftTarget:
    """One of the two ways of asking."""

    name: str
    process: psutil.Process
    url: str

    def can(self, point: Point) -> bool:
        return point.mix == "mixed" and point.concurrency > 1 and (self.name == BATCH or not point.drawn)

    def prepare(self, point: Point) -> None:
        """Nothing: all is loaded from the start."""

    def ask(self, requests: Sequence[Request], *, concurrency: int) -> list[Sample]:
        """As if ``concurrency`` clients waited, each sending its next request when its last is answered."""
        size = concurrency if self.name == BATCH else 1
        rows = [[None if r.model == BASE else r.model, r.prompt, r.max_tokens] for r in requests]
        answer = httpx.post(self.url, json={"rows": rows, "size": size}, timeout=None, trust_env=False)
        answer.raise_for_status()
        samples: list[Sample] = []
        for number, found in enumerate(answer.json()):
            earlier = number - concurrency
            started = samples[0].started if samples else found["started"]
            if earlier >= 0:
                started = found["started"] if size > 1 else samples[earlier].times[-1]
            times = tuple(found["times"])
            samples.append(Sample(started, times, found["text"], len(times), found["prompt_tokens"]))
        return samples
