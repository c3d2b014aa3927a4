"""The worked examples of OpenAI's files and fine-tuning, in the same story as ``examples``."""

from __future__ import annotations

import json
from typing import Any

from app.api.examples import ADAPTER_ID, CANCELLED_JOB, JOB, JOB_ID, QUEUED_JOB, SEEDS

FILE_ID = "file-0199d3a1b0004f1a2b3c4d"
_BASE, _CREATED, _NOW = "smollm2-135m-instruct", 1767603600, 1767603752

LINES = "".join(
    json.dumps(
        {
            "messages": [
                {"role": "user", "content": f"{seed['instruction']}\n\n{seed['input']}"},
                {"role": "assistant", "content": seed["output"]},
            ]
        }
    )
    + "\n"
    for seed in SEEDS
)
FILE: dict[str, Any] = {
    "id": FILE_ID,
    "object": "file",
    "bytes": len(LINES),
    "created_at": _CREATED,
    "expires_at": None,
    "filename": "finance.jsonl",
    "purpose": "fine-tune",
    "status": "processed",
    "status_details": None,
}
FILES = {"object": "list", "data": [FILE], "first_id": FILE_ID, "last_id": FILE_ID, "has_more": False}
DELETED = {"id": FILE_ID, "object": "file", "deleted": True}
FORM = {"file": LINES, "purpose": "fine-tune"}

ORDER: dict[str, Any] = {
    "model": _BASE,
    "training_file": FILE_ID,
    "suffix": "finance",
    "seed": 7,
    "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}},
    "metadata": {"team": "research"},
    "recipe": {"preset": "quick"},
}
_KNOBS = {"batch_size": 8, "learning_rate_multiplier": 1.0, "n_epochs": 3}
TUNING: dict[str, Any] = {
    "id": JOB_ID,
    "object": "fine_tuning.job",
    "created_at": _CREATED,
    "finished_at": None,
    "estimated_finish": _NOW + 300,
    "status": "running",
    "error": None,
    "model": _BASE,
    "fine_tuned_model": None,
    "training_file": FILE_ID,
    "validation_file": None,
    "result_files": [],
    "trained_tokens": None,
    "hyperparameters": _KNOBS,
    "method": {"type": "supervised", "supervised": {"hyperparameters": _KNOBS}},
    "seed": 7,
    "organization_id": "selfspec",
    "user_provided_suffix": "finance",
    "integrations": [],
    "metadata": {"team": "research"},
    "selfspec": JOB,
}
QUEUED_TUNING = {**TUNING, "status": "queued", "selfspec": QUEUED_JOB}
PAUSING_TUNING = {**TUNING, "selfspec": {**JOB, "pause_requested": True}}
CANCELLED_TUNING = {
    **TUNING,
    "status": "cancelled",
    "estimated_finish": None,
    "finished_at": _NOW,
    "selfspec": CANCELLED_JOB,
}
TUNINGS = {"object": "list", "data": [TUNING], "has_more": False}
EVENT: dict[str, Any] = {
    "id": "ftevent-42",
    "object": "fine_tuning.job.event",
    "created_at": _NOW,
    "level": "info",
    "message": "step 9: loss 1.204",
    "type": "metrics",
    "data": {"step": 9, "total_steps": 45, "train_loss": 1.204, "learning_rate": 0.0009, "epoch": 0.6},
    "selfspec": {"type": "training_step", "stage": "adapter"},
}
EVENTS = {"object": "list", "data": [EVENT], "has_more": False}
CHECKPOINT: dict[str, Any] = {
    "id": f"ftckpt-{ADAPTER_ID}",
    "object": "fine_tuning.job.checkpoint",
    "created_at": _NOW,
    "fine_tuning_job_id": JOB_ID,
    "fine_tuned_model_checkpoint": "finance@v1",
    "step_number": 45,
    "metrics": {
        "step": 45.0,
        "train_loss": 0.412,
        "train_mean_token_accuracy": None,
        "valid_loss": None,
        "valid_mean_token_accuracy": None,
        "full_valid_loss": None,
        "full_valid_mean_token_accuracy": None,
    },
}
CHECKPOINTS = {
    "object": "list",
    "data": [CHECKPOINT],
    "first_id": CHECKPOINT["id"],
    "last_id": CHECKPOINT["id"],
    "has_more": False,
}
