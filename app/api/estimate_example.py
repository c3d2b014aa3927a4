"""The worked example of /specialize/estimate: the story's job, as it would be told once a job has ended there.

A test holds it against its schema.
"""

from __future__ import annotations

from typing import Any

from app.api.examples import SPECIALIZE

_MACHINE = "AMD EPYC, 2 cores; cpu, none, bfloat16"


def _span(seconds: float, low: float, high: float) -> dict[str, Any]:
    return {"seconds": seconds, "low": low, "high": high, "num_jobs": 3}


def _stage(stage: str, kind: str, time: dict[str, Any], **tokens: int) -> dict[str, Any]:
    counts = {"requests": 0, "read_tokens": 0, "written_tokens": 0, "trained_tokens": 0, **tokens}
    memory = {"peak_bytes": 2_415_919_104, "num_jobs": 3}
    return {"stage": stage, "kind": kind, **counts, "time": time, "memory": memory}


ESTIMATE: dict[str, Any] = {
    "domain": SPECIALIZE["domain"],
    "base": "smollm2-135m-instruct",
    "allowed_to_proceed": True,
    "reasons": [],
    "prompts": 96,
    "examples": 60,
    "trained_tokens": 33_400,
    "generated_tokens": 5_150,
    "time": _span(222.6, 177.5, 279.4),
    "start": _span(9.5, 8.1, 11.2),
    "queue_seconds": 0.0,
    "jobs_ahead": 0,
    "memory": {"peak_bytes": 2_415_919_104, "num_jobs": 3},
    "free_bytes": 6_442_450_944,
    "fits": True,
    "stages": [
        _stage(
            "instructions",
            "instructions",
            _span(92.0, 73.6, 115.0),
            requests=96,
            read_tokens=28_800,
            written_tokens=4_600,
        ),
        _stage("responses", "responses", _span(41.0, 33.9, 49.6), requests=60, read_tokens=15_600, written_tokens=540),
        _stage("dataset", "dataset", _span(0.3, 0.2, 0.4)),
        _stage("adapter", "adapter", _span(38.0, 29.7, 48.6), trained_tokens=16_500),
        _stage("adapter-seeds", "adapter", _span(1.4, 1.1, 1.8), trained_tokens=400),
        _stage("adapter-seeds-steps", "adapter", _span(38.0, 29.0, 49.8), trained_tokens=16_500),
        _stage("metrics", "metrics", _span(2.2, 1.7, 2.8), requests=5, read_tokens=700, written_tokens=10),
        _stage("gate", "gate", _span(0.2, 0.2, 0.2)),
    ],
    "basis": {"how": "measured", "num_jobs": 3, "machine": _MACHINE, "here": _MACHINE, "notes": []},
}
