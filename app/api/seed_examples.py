"""More of the worked examples' story: seeds examined, two domains in one expert, a row and a seed followed.

A test holds every one of them against its schema.
"""

from __future__ import annotations

from typing import Any

from app.api.examples import ADAPTER_ID, JOB_ID, SEEDS

_ASK = SEEDS[0]["instruction"]
_CLAUSE = "Which kind of clause is this? Answer with one word."
SEED_ID = "b371a0f25c5e9d04"
ROW_ID = "9b1f0c55d2a7e643"

SEVERAL: dict[str, Any] = {
    "domain": "business",
    "domains": [
        {"domain": "finance", "description": "Company news and filings", "seeds": SEEDS},
        {
            "domain": "law",
            "seeds": [
                {
                    "task": "clause_kind",
                    "instruction": _CLAUSE,
                    "input": "Either party may end this agreement with thirty days' notice.",
                    "output": "termination",
                },
                {
                    "task": "clause_kind",
                    "instruction": _CLAUSE,
                    "input": "The supplier shall keep all records of the buyer secret.",
                    "output": "confidentiality",
                },
            ],
        },
    ],
    "recipe": {"preset": "quick"},
}
EXAMINE: dict[str, Any] = {
    "domain": "finance",
    "seeds": SEEDS,
    "evaluation": [
        {
            "task": "headline_sentiment",
            "instruction": _ASK,
            "input": "Corvane Airlines keeps its forecast unchanged",
            "output": "neutral",
            "references": ["no effect"],
        }
    ],
    "recipe": {"preset": "quick"},
}
_SMALL = "the expert is judged by 1 item, fewer than min_evaluation_items (20)"
_FEW = "2 of the 5 seeds or more that a task should have"
REPORT: dict[str, Any] = {
    "is_usable": True,
    "summary": f"2 seeds of 1 task, 1 evaluation item: 1 warning: {_SMALL}",
    "num_seeds": 2,
    "num_evaluation": 1,
    "num_labelled": 0,
    "num_held_out": 0,
    "tasks": [
        {
            "task": "headline_sentiment",
            "domain": "",
            "seeds": 2,
            "held_out": 0,
            "evaluation": 1,
            "share": 1.0,
            "labels": [],
        }
    ],
    "lengths": {
        "median": 66,
        "longest": 68,
        "max_length": 512,
        "context": 8192,
        "longest_prompt": 214,
        "cut_texts": {},
    },
    "findings": [
        {
            "severity": "note",
            "code": "few_seeds",
            "message": f"task 'headline_sentiment' has {_FEW}",
            "remedy": "send more examples of it",
            "source": "seeds",
            "task": "headline_sentiment",
            "count": 2,
            "lines": [],
        },
        {
            "severity": "warning",
            "code": "small_evaluation",
            "message": _SMALL,
            "remedy": "send more evaluation items, else differences will mostly be chance",
            "source": "evaluation",
            "task": None,
            "count": 1,
            "lines": [],
        },
    ],
    "problems": [],
    "dry_run": {
        "prompts": 10,
        "written": 10,
        "accepted": 7,
        "tokens": 312,
        "seconds": 4.8,
        "rejected": [
            {
                "reason": "near_duplicate",
                "count": 3,
                "samples": ["Larkmere Bank lifts its dividend again (ROUGE-L 0.778 with seed b371a0f25c5e9d04)"],
            }
        ],
        "samples": [f"{_ASK}\nTavrick cuts its outlook"],
        "answered": 7,
        "answers_kept": 7,
        "answer_seconds": 1.4,
        "rejected_answers": [],
        "projection": {
            "examples": 60,
            "wanted": 60,
            "prompts": 86,
            "instruction_seconds": 41.3,
            "response_seconds": 12.0,
        },
    },
}
_KNOWN_SEED = {"id": SEED_ID, "domain": "", **SEEDS[1], "references": []}
_BASE = {"id": "base", "name": None, "stage": None}
ROW: dict[str, Any] = {
    "job": JOB_ID,
    "stage": "dataset",
    "row": 7,
    "example": {
        "id": ROW_ID,
        "instruction": _ASK,
        "input": "Tavrick cuts its outlook",
        "output": "bad",
        "task": "headline_sentiment",
        "domain": "",
        "origin": "generated",
        "weight": 1.0,
        "checks": [
            {"name": "too_short", "is_passed": True, "value": 4, "detail": "at least 3 words"},
            {"name": "near_duplicate", "is_passed": True, "value": 0.1667, "detail": ""},
            {"name": "empty_response", "is_passed": True, "value": None, "detail": ""},
        ],
        "item": 0,
    },
    "seeds": [_KNOWN_SEED],
    "instruction_writer": _BASE,
    "reply": {
        "index": 4,
        "task": "headline_sentiment",
        "prompt": "The following texts from the field of finance are for one task: …",
        "text": "Tavrick cuts its outlook",
        "finish_reason": "stop",
        "num_tokens": 7,
    },
    "response_writer": _BASE,
    "answer": {
        "prompt": "You are an expert in finance. Give the best and most exact response …",
        "text": " bad",
        "finish_reason": "stop",
        "num_tokens": 2,
        "samples": [],
        "sample_generators": [],
        "sample_finish_reasons": [],
        "confidence": None,
        "merged": None,
    },
    "passages": [],
    "was": None,
    "artifacts": {
        "seeds": f"{'3f7a' * 16}",
        "instructions": f"{'a91c' * 16}",
        "responses": f"{'07be' * 16}",
        "dataset": f"{'d25e' * 16}",
    },
}
SEED_ROWS: dict[str, Any] = {
    "id": SEED_ID,
    "seed": _KNOWN_SEED,
    "jobs": [
        {
            "job": JOB_ID,
            "domain": "finance",
            "status": "succeeded",
            "is_held_out": False,
            "adapter": {"id": ADAPTER_ID, "name": "finance@v1", "stage": None},
        }
    ],
    "rows": [
        {
            "job": JOB_ID,
            "row": 7,
            "id": ROW_ID,
            "origin": "generated",
            "task": "headline_sentiment",
            "instruction": _ASK,
            "input": "Tavrick cuts its outlook",
            "output": "bad",
            "is_edited": False,
        }
    ],
    "next": None,
}
