"""Worked examples of a review: a job that is held, its rows, and one that is changed.

A test holds every one of them against its schema.
"""

from __future__ import annotations

from typing import Any

from app.api.examples import JOB, JOB_ID, QUEUED_JOB, SEEDS
from app.api.seed_examples import ROW_ID

_TEXTS = {"instruction": SEEDS[0]["instruction"], "input": "Tavrick cuts its outlook", "output": "neutral"}
ROW: dict[str, Any] = {
    "index": 7,
    "id": ROW_ID,
    "origin": "generated",
    "task": "headline_sentiment",
    **_TEXTS,
    "is_edited": False,
    "is_deleted": False,
    "was": None,
}
CHANGES = {"output": "bad"}
EDITED_ROW = {**ROW, **CHANGES, "is_edited": True, "was": _TEXTS}
DELETED_ROW = {**ROW, "is_deleted": True}
ROWS = {
    "job": JOB_ID,
    "stage": "dataset",
    "is_open": True,
    "num_rows": 62,
    "num_edited": 1,
    "num_deleted": 0,
    "data": [EDITED_ROW],
    "next": "7",
}
PAUSING_JOB = {**JOB, "pause_requested": True}
RETRIED_JOB = {**QUEUED_JOB, "attempt": 1}
