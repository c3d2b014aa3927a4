"""Jobs, events and checkpoints in the shapes of OpenAI's fine-tuning API, and its requests as orders."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from app.api.schemas.jobs import JobBody
from app.api.schemas.openai_tuning import (
    CheckpointBody,
    CheckpointMetricsBody,
    HyperparametersBody,
    MethodBody,
    SupervisedBody,
    TuningBody,
    TuningErrorBody,
    TuningEventBody,
    TuningRequest,
)
from app.services.fine_tuning import EVENT_PREFIX, CheckpointView, FineTuningView
from app.services.tuning_order import Hyperparameters, TuningOrder
from app.services.views import EventView

ORGANIZATION = "selfspec"  # there is one, and OpenAI's clients want its name
_LEVELS: dict[str, Literal["info", "warn", "error"]] = {"info": "info", "warning": "warn", "error": "error"}
_STEP = "training_step"


def order_of(body: TuningRequest) -> TuningOrder:
    """What was asked for."""
    return TuningOrder(
        model=body.model,
        training_file=body.training_file,
        validation_file=body.validation_file,
        suffix=body.suffix,
        seed=body.seed,
        hyperparameters=Hyperparameters(**body.chosen.model_dump()),
        labels=body.metadata,
        recipe=body.recipe,
        description=body.description,
        webhook_url=body.webhook_url,
    )


def tuning_body(view: FineTuningView) -> TuningBody:
    """One job."""
    job, knobs = view.job, HyperparametersBody.model_validate(view.hyperparameters, from_attributes=True)
    error = job.error and TuningErrorBody(code=job.error.code, message=job.error.message, param=job.error.param)
    return TuningBody(
        id=job.id,
        created_at=_seconds(job.created_at),
        finished_at=job.finished_at and _seconds(job.finished_at),
        estimated_finish=job.estimated_finish and _seconds(job.estimated_finish),
        status=job.status,
        error=error,
        model=view.model,
        fine_tuned_model=view.fine_tuned_model,
        training_file=view.training_file,
        validation_file=view.validation_file,
        result_files=list(view.result_files),
        trained_tokens=job.trained_tokens,
        hyperparameters=knobs,
        method=MethodBody(supervised=SupervisedBody(hyperparameters=knobs)),
        seed=job.recipe["seed"],
        organization_id=ORGANIZATION,
        user_provided_suffix=view.suffix,
        integrations=[],
        metadata=dict(view.labels) or None,
        selfspec=JobBody.model_validate(job, from_attributes=True),
    )


def event_body(event: EventView) -> TuningEventBody:
    """One event; an optimizer step is what that API calls metrics."""
    is_step = event.type == _STEP
    return TuningEventBody(
        id=f"{EVENT_PREFIX}{event.id}",
        created_at=_seconds(event.created_at),
        level=_LEVELS[event.level],
        message=event.message,
        type="metrics" if is_step else "message",
        data=_step(event.data) if is_step else event.data,
        selfspec={"type": event.type, "stage": event.stage},
    )


def checkpoint_body(view: CheckpointView) -> CheckpointBody:
    """One checkpoint."""
    return CheckpointBody(
        id=view.id,
        created_at=_seconds(view.created_at),
        fine_tuning_job_id=view.job_id,
        fine_tuned_model_checkpoint=view.model,
        step_number=view.step_number,
        metrics=CheckpointMetricsBody(step=view.step_number, train_loss=view.train_loss),
    )


def _step(data: dict[str, Any]) -> dict[str, Any]:
    names = {"num_steps": "total_steps", "loss": "train_loss"}
    return {names.get(key, key): value for key, value in data.items()}


def _seconds(instant: datetime) -> int:
    return int(instant.timestamp())
