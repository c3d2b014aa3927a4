"""What OpenAI's clients send to order a fine-tuning, and what they are told about it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from app.api.schemas.generate import Name, Text
from app.api.schemas.jobs import JobBody
from app.api.schemas.openai_fields import Fields, custom
from app.core.states import JobStatus

MAX_LABELS = 16  # pairs of metadata
SUPERVISED = "supervised"


def _read_auto(value: Any) -> Any:
    if isinstance(value, str):
        if value != "auto":
            raise custom('must be a number or "auto"')
        return None
    return value


def _auto(kind: str, least: dict[str, float]) -> Any:
    """ "auto", which is read as None, or a number; the schema says so."""
    return WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": kind, **least}], "default": "auto"})


Count = Annotated[int | None, Field(ge=1), BeforeValidator(_read_auto), _auto("integer", {"minimum": 1})]
Factor = Annotated[
    float | None,
    Field(gt=0, allow_inf_nan=False),
    BeforeValidator(_read_auto),
    _auto("number", {"exclusiveMinimum": 0}),
]
Label = Annotated[str, StringConstraints(max_length=512)]
LabelName = Annotated[str, StringConstraints(max_length=64)]


class HyperparametersRequest(Fields):
    """How the expert is trained; "auto" leaves a knob to the recipe."""

    batch_size: Count = Field(None, description="Rows an optimizer step: the recipe's batch_size.")
    learning_rate_multiplier: Factor = Field(None, description="Factor of the recipe's learning_rate.")
    n_epochs: Count = Field(None, description="Times the rows are gone through: the recipe's epochs.")


class SupervisedRequest(Fields):
    """The one method there is."""

    hyperparameters: HyperparametersRequest = Field(default_factory=HyperparametersRequest)


class MethodRequest(Fields):
    """How the expert is to be made."""

    NEUTRAL: ClassVar = {"dpo": (), "reinforcement": ()}

    type: Literal["supervised"]
    supervised: SupervisedRequest = Field(default_factory=SupervisedRequest)

    @model_validator(mode="before")
    @classmethod
    def _only_supervised(cls, data: Any) -> Any:
        kind = data.get("type") if isinstance(data, dict) else None
        if kind in ("dpo", "reinforcement"):
            raise custom(f"{kind} is not supported; the one method is {SUPERVISED}")
        return data


class TuningRequest(Fields):
    """An order. ``recipe``, ``description`` and ``webhook_url`` are extensions (``extra_body``)."""

    NEUTRAL: ClassVar = {"integrations": ([],)}

    model: Name = Field(description="The base this service runs (GET /v1/models: the one without a parent).")
    training_file: Name = Field(description="Id of a file of chats or seeds: what the expert is made of.")
    validation_file: Name | None = Field(
        None, description="Id of a file of the same kind to judge by. Left out: part of the training file is held out."
    )
    suffix: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        None, description="The domain, which names the expert: small letters, digits, - and _. Left out: ft-…"
    )
    seed: int | None = Field(None, ge=0, lt=2**31, description="Makes the whole job repeatable. Left out: 0.")
    method: MethodRequest | None = None
    hyperparameters: HyperparametersRequest | None = Field(
        None, description="Their older place; those under method win."
    )
    metadata: dict[LabelName, Label] = Field(
        default_factory=dict, max_length=MAX_LABELS, description="Texts of your own, to find the job by."
    )
    recipe: dict[str, Any] = Field(
        default_factory=dict, description='Extension: {"preset": "quick"} and any knob, as POST /specialize takes it.'
    )
    description: Text | None = Field(None, description="Extension: what the domain is about.")
    webhook_url: Text | None = Field(None, description="Extension: where the job's events are sent.")

    @field_validator("metadata")
    @classmethod
    def _check_texts(cls, metadata: dict[str, str]) -> dict[str, str]:
        if any("\x00" in text for pair in metadata.items() for text in pair):
            raise custom("holds the character U+0000")
        return metadata

    @property
    def chosen(self) -> HyperparametersRequest:
        """The hyperparameters that count."""
        older = self.hyperparameters or HyperparametersRequest()
        newer = self.method.supervised.hyperparameters if self.method else HyperparametersRequest()
        return older.model_copy(update=newer.model_dump(exclude_none=True))


class HyperparametersBody(BaseModel):
    """How the expert is trained."""

    batch_size: int
    learning_rate_multiplier: float
    n_epochs: int


class SupervisedBody(BaseModel):
    """The method's own fields."""

    hyperparameters: HyperparametersBody


class MethodBody(BaseModel):
    """How the expert is made."""

    type: Literal["supervised"] = "supervised"
    supervised: SupervisedBody


class TuningErrorBody(BaseModel):
    """Why a job failed."""

    code: str
    message: str
    param: str | None


class TuningBody(BaseModel):
    """One job."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int = Field(description="Seconds since 1970.")
    finished_at: int | None
    estimated_finish: int | None = Field(description="Seconds since 1970; null while there is nothing to reckon with.")
    status: JobStatus = Field(description="A paused job is queued; `selfspec.waits_for` says so.")
    error: TuningErrorBody | None
    model: str
    fine_tuned_model: str | None = Field(description="What to ask /v1/chat/completions for, once it has succeeded.")
    training_file: str
    validation_file: str | None
    result_files: list[str] = Field(
        description="Of a job that succeeded: losses (CSV), training rows, figures (JSONL)."
    )
    trained_tokens: int | None
    hyperparameters: HyperparametersBody
    method: MethodBody
    seed: int
    organization_id: str
    user_provided_suffix: str | None
    integrations: list[Any]
    metadata: dict[str, str] | None
    selfspec: JobBody = Field(description="The job as GET /jobs/{id} shows it: stage, progress, waits_for and so on.")


class TuningList(BaseModel):
    """Some jobs, the newest first."""

    object: Literal["list"] = "list"
    data: list[TuningBody]
    has_more: bool


class TuningEventBody(BaseModel):
    """One line of a job's story."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"] = Field(description="metrics: an optimizer step.")
    data: dict[str, Any] = Field(description="Of metrics: step, total_steps, train_loss and so on.")
    selfspec: dict[str, Any] = Field(description="type and stage, as GET /jobs/{id}/events has them.")


class TuningEventList(BaseModel):
    """Some events, the newest first."""

    object: Literal["list"] = "list"
    data: list[TuningEventBody]
    has_more: bool


class CheckpointMetricsBody(BaseModel):
    """Of the training; what is not measured is null."""

    step: float
    train_loss: float = Field(description="Nats a target token, at the last step.")
    train_mean_token_accuracy: None = None
    valid_loss: None = None
    valid_mean_token_accuracy: None = None
    full_valid_loss: None = None
    full_valid_mean_token_accuracy: None = None


class CheckpointBody(BaseModel):
    """Weights that can be asked."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: CheckpointMetricsBody


class CheckpointList(BaseModel):
    """Those of a job."""

    object: Literal["list"] = "list"
    data: list[CheckpointBody]
    first_id: str | None
    last_id: str | None
    has_more: bool
