"""What kinds of events there are. Each has its row in docs/events.md: programs rely on the names."""

from __future__ import annotations

from typing import Literal

EventType = Literal[
    # the job
    "job_queued",
    "seeds_examined",
    "keys_ignored",
    "job_started",
    "job_interrupted",
    "process_died",
    "worker_lost",
    "waiting_for_memory",
    "waiting_for_disk",
    "memory_may_not_do",
    "cancel_requested",
    "pause_requested",
    "job_paused",
    "review_wanted",
    "rows_reviewed",
    "job_resumed",
    "job_retried",
    "job_succeeded",
    "job_failed",
    "job_cancelled",
    "webhook_given_up",
    # any stage
    "stage_started",
    "stage_succeeded",
    "stage_skipped",
    "work_kept",
    # what a stage found
    "tasks_checked",
    "texts_cut_off",
    "instructions_judged",
    "yield_too_low",
    "responses_judged",
    "contamination_checked",
    "seeds_alone",
    "dataset_ready",
    "training_step",
    "training_done",
    "trial_done",
    "expert_chosen",
    "champion_left_out",
    "metrics_ready",
    "off_domain_checked",
    "gate_decided",
]
