"""From samples to figures: rates, percentiles, processor time. Knows nothing of servers or clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.serving.load import Sample
from benchmarks.serving.workload import Workload


@dataclass(frozen=True, slots=True)
class Spread:
    """Middle and 95th percentile, in seconds."""

    p50: float
    p95: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if not values:
            return cls(float("nan"), float("nan"))
        p50, p95 = np.percentile(values, [50, 95])
        return cls(float(p50), float(p95))


@dataclass(frozen=True, slots=True)
class Measurement:
    """One point, measured once on one target. Shares are of one core: 1.0 is a core kept busy throughout."""

    target: str
    dtype: str
    point: str
    tokens_per_second: float
    first_token: Spread
    total: Spread
    between_tokens: Spread
    cpu_ms_per_token: float
    prompt_tokens: float  # mean, as the server counted them
    requests: int
    failures: int
    first_failure: str | None
    seconds: float
    client_share: float
    others_share: float  # neither the server nor this client: a busy neighbour


@dataclass(frozen=True, slots=True)
class Processors:
    """Processor seconds spent during a measurement."""

    server: float
    client: float
    machine: float


def summarize(
    workload: Workload, samples: Sequence[Sample], *, target: str, dtype: str, processors: Processors
) -> Measurement:
    """A request fails if it broke off or did not write exactly what was asked for."""
    problems = [failure(sample, request.max_tokens) for sample, request in zip(samples, workload.requests, strict=True)]
    whole = [sample for sample, problem in zip(samples, problems, strict=True) if problem is None]
    seconds = max((s.times[-1] for s in whole), default=0.0) - min((s.started for s in samples), default=0.0)
    num_tokens = sum(sample.num_tokens for sample in whole)
    others = processors.machine - processors.server - processors.client
    return Measurement(
        target=target,
        dtype=dtype,
        point=workload.point.name,
        tokens_per_second=num_tokens / seconds if whole else 0.0,
        first_token=Spread.of([s.times[0] - s.started for s in whole]),
        total=Spread.of([s.times[-1] - s.started for s in whole]),
        between_tokens=Spread.of([gap for s in whole for gap in gaps(s)]),
        cpu_ms_per_token=1000 * processors.server / max(1, num_tokens),
        prompt_tokens=float(np.mean([s.prompt_tokens or 0 for s in whole])) if whole else 0.0,
        requests=len(samples),
        failures=len(samples) - len(whole),
        first_failure=next((problem for problem in problems if problem), None),
        seconds=seconds if whole else 0.0,
        client_share=processors.client / seconds if whole else 0.0,
        others_share=max(0.0, others / seconds) if whole else 0.0,
    )


def failure(sample: Sample, wanted: int) -> str | None:
    """Why a sample cannot be counted."""
    if sample.error is not None:
        return sample.error
    if sample.num_tokens != wanted:
        return f"{sample.num_tokens} tokens written, {wanted} asked for"
    return None if sample.times else "no text came"


def gaps(sample: Sample) -> list[float]:
    """Seconds between the pieces of an answer."""
    return [later - earlier for earlier, later in zip(sample.times, sample.times[1:], strict=False)]
