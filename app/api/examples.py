"""The worked examples of the documentation: one story, the expert for finance, told through every route.

A test holds every one of them against its schema.
"""

from __future__ import annotations

import json
from typing import Any

JOB_ID = "job-0199d3a1c0de4f1a2b3c4d"
ADAPTER_ID = "5f0c9b7e2a4d1836"

SEEDS: list[dict[str, str]] = [
    {
        "task": "headline_sentiment",
        "instruction": "Does the headline sound good, bad or neutral for the company? Answer with one word.",
        "input": "Larkmere Bank lifts its dividend after a record quarter",
        "output": "good",
    },
    {
        "task": "headline_sentiment",
        "instruction": "Does the headline sound good, bad or neutral for the company? Answer with one word.",
        "input": "Ostrava Steel idles two furnaces as orders dry up",
        "output": "bad",
    },
]
SPECIALIZE: dict[str, Any] = {
    "domain": "finance",
    "description": "Company news and filings",
    "seeds": SEEDS,
    "recipe": {"preset": "quick", "seed": 7},
}

_STARTED, _NOW = "2026-01-05T09:00:02Z", "2026-01-05T09:02:32Z"


def _stage(stage: str, status: str, done: int, total: int | None, **known: Any) -> dict[str, Any]:
    times: dict[str, Any] = {
        "seconds": None,
        "seconds_remaining": None,
        "started_at": None,
        "finished_at": None,
        "detail": {},
    }
    return {"stage": stage, "status": status, "done": done, "total": total, **times, **known}


JOB: dict[str, Any] = {
    "id": JOB_ID,
    "domain": "finance",
    "status": "running",
    "stage": "responses",
    "progress": [
        _stage(
            "instructions", "succeeded", 120, 120, seconds=90.0, started_at=_STARTED, finished_at="2026-01-05T09:01:32Z"
        ),
        _stage(
            "responses", "running", 60, 120, seconds=60.0, seconds_remaining=60.0, started_at="2026-01-05T09:01:32Z"
        ),
        _stage("dataset", "pending", 0, None),
        *(_stage(name, "pending", 0, None) for name in ("adapter", "adapter-seeds", "adapter-seeds-steps")),
        _stage("metrics", "pending", 0, None),
        _stage("gate", "pending", 0, None),
    ],
    "base": "smollm2-135m-instruct",
    "recipe": {"preset": "quick", "seed": 7},
    "num_seeds": 2,
    "num_evaluation": None,
    "adapter": None,
    "error": None,
    "attempt": 1,
    "waits_for": None,
    "cancel_requested": False,
    "pause_requested": False,
    "created_at": "2026-01-05T09:00:00Z",
    "started_at": _STARTED,
    "finished_at": None,
    "queue_position": None,
    "seconds_remaining": 310.0,
    "estimated_finish": "2026-01-05T09:07:42Z",
    "trained_tokens": None,
}
QUEUED_JOB = {
    **JOB,
    "status": "queued",
    "stage": None,
    "progress": [_stage(run["stage"], "pending", 0, None) for run in JOB["progress"]],
    "attempt": 0,
    "started_at": None,
    "queue_position": 1,
    "seconds_remaining": 460.0,
}
CANCELLED_JOB = {
    **QUEUED_JOB,
    "status": "cancelled",
    "cancel_requested": True,
    "finished_at": _NOW,
    "queue_position": None,
    "seconds_remaining": None,
    "estimated_finish": None,
}
EVENT = {
    "id": 17,
    "created_at": _STARTED,
    "level": "info",
    "type": "job_queued",
    "stage": None,
    "message": "2 seeds and 0 evaluation items were checked; the job is queued",
    "data": {"seeds": 2, "evaluation": 0, "labelled": 0},
}
EVENT_STREAM = (
    f"retry: 2000\n\nid: 17\nevent: job_queued\ndata: {json.dumps(EVENT)}\n\n"
    f'event: done\ndata: {{"id": "{JOB_ID}", "status": "succeeded"}}\n\n'
)
METRIC = {
    "task": "mean",
    "metric": "f1",
    "n": 120,
    "against": "base_template",
    "shots": 0,
    "score": 21.4,
    "expert": 38.9,
    "difference": 17.5,
    "low": 12.1,
    "high": 22.8,
}
METRICS = {
    "job": JOB_ID,
    "metrics": [METRIC],
    "about": {
        "chosen_by": None,
        "reported_on": "evaluation",
        "n": 120,
        "num_shown_fewer": 0,
        "notes": ["the interval of the mean token F1's gain over the base is 10.7 points wide"],
    },
    "over_shots": [{"line": "expert", "task": "mean", "metric": "f1", "worst": 37.2, "average": 38.6, "best": 39.8}],
    "off_domain": {
        "domains": [
            {
                "domain": "biomedicine",
                "n": 20,
                "base": 18.0,
                "expert": 19.5,
                "difference": 1.5,
                "low": -2.1,
                "high": 5.2,
            }
        ],
        "perplexity": {"base": 21.3, "expert": 22.0, "ratio": 1.03, "num_tokens": 214},
    },
}
DATASET_ROW = (
    '{"id": "9b1f0c55d2a7e643", "instruction": "Does the headline sound good, bad or neutral for the company?", '
    '"input": "Tavrick cuts its outlook", "output": "bad", "task": "headline_sentiment", "origin": "generated", '
    '"seed_ids": ["0c3d5e7f91a2b4c6"], "generator": "base", "reply": 4, "item": 0}\n'
)
ADAPTER = {
    "id": ADAPTER_ID,
    "name": "finance@v1",
    "domain": "finance",
    "version": 1,
    "is_champion": True,
    "attached": True,
    "job": JOB_ID,
    "base": "smollm2-135m-instruct",
    "base_fingerprint": "c41d8f20b7e93a56",
    "rank": 8,
    "alpha": 16,
    "num_parameters": 2442240,
    "num_modules": 210,
    "num_bytes": 9768960,
    "probe_distance": 0.43,
    "template": {
        "name": "alpaca-v1",
        "with_input": "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
        "without_input": "### Instruction:\n{instruction}\n\n### Response:\n",
    },
    "digest": f"{ADAPTER_ID}0d9e8c7b6a5f4e3d2c1b0a99887766554433221100ffeedd",
    "created_at": "2026-01-05T09:08:10Z",
    "files_removed_at": None,
    "decision": "promote",
    "reason": "mean token F1 21.4 (the base) → 38.9 over 120 items (difference +17.5, 95 % interval +12.1 to +22.8): "
    "surely better than the base",
    "metrics": [METRIC],
}
DOMAIN = {
    "name": "finance",
    "description": "Company news and filings",
    "champion": ADAPTER,
    "versions": [ADAPTER],
    "created_at": "2026-01-05T09:00:00Z",
}
PROMOTE = {"version": 1, "reason": "reads better on last week's headlines"}
PROMOTION = {
    "id": 3,
    "adapter": ADAPTER_ID,
    "adapter_name": "finance@v1",
    "created_at": "2026-01-06T08:00:00Z",
    "reason": "by hand: reads better on last week's headlines",
    "job": None,
}
QUESTION = {
    "instruction": "Does the headline sound good, bad or neutral for the company? Answer with one word.",
    "input": "Brindlemoor Foods recalls its best-selling cereal",
    "max_new_tokens": 16,
}
ANSWER = {
    "text": "bad",
    "domain": "finance",
    "adapter": ADAPTER_ID,
    "adapter_name": "finance@v1",
    "base": "smollm2-135m-instruct",
    "finish_reason": "stop",
    "usage": {
        "prompt_tokens": 58,
        "completion_tokens": 2,
        "total_tokens": 60,
        "cached_tokens": 32,
        "cut_tokens": 0,
        "shots": 0,
    },
    "timings": {"queue_seconds": 0.002, "first_token_seconds": 0.09, "seconds": 0.11},
    "logprobs": None,
}
BASE_ANSWER = {**ANSWER, "text": "The headline sounds", "domain": None, "adapter": None, "adapter_name": None}
STREAMED = (
    'event: piece\ndata: {"index": 0, "text": "bad"}\n\n'
    f"event: answer\ndata: {json.dumps({'index': 0, **ANSWER})}\n\n"
)
LORAX_QUESTION = {
    "inputs": "Does this headline sound good or bad? Brindlemoor Foods recalls its best-selling cereal\nAnswer:",
    "parameters": {"max_new_tokens": 16, "details": True},
}
LORAX_ANSWER = {
    "generated_text": " bad",
    "details": {
        "finish_reason": "eos_token",
        "prompt_tokens": 19,
        "generated_tokens": 2,
        "skipped_tokens": 0,
        "prefill": [],
        "tokens": [],
    },
}
READY = {
    "ready": True,
    "checks": {
        "database": {"ok": True, "detail": "answers"},
        "broker": {"ok": True, "detail": "answers"},
        "base": {"ok": True, "detail": "smollm2-135m-instruct (none, bfloat16, cpu)"},
        "disk": {"ok": True, "detail": "can be written to"},
        "drain": {"ok": True, "detail": "takes requests"},
        "warm_up": {"ok": True, "detail": "base loaded in 1.9 s; first token after 0.21 s; experts attached: 1"},
    },
}
NOT_READY = {
    "ready": False,
    "checks": {
        **READY["checks"],  # type: ignore[dict-item]
        "base": {"ok": False, "detail": "the base is still loading"},
        "warm_up": {"ok": False, "detail": "the base is loading"},
    },
}


def response(description: str, example: Any, *, kind: str = "application/json", **headers: str) -> dict[str, Any]:
    """Documentation of one success: its worked example, and the headers it has by name (written with _)."""
    told = {
        name.replace("_", "-"): {"description": about, "schema": {"type": "string"}} for name, about in headers.items()
    }
    return {"description": description, "content": {kind: {"example": example}}, **({"headers": told} if told else {})}
