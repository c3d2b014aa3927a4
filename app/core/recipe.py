"""The recipe: every knob of a job, frozen, and saved with everything the job makes.

``paper`` holds the values of Kang et al. ("Self-Specialization", §2, App. A and C); ``quick`` trades size for minutes
on two CPU cores. A request names a preset and overrides single knobs; unknown keys are refused by name.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.core.errors import InvalidInput, Problem

PromptStyle = Literal["list", "anchored"]


class Recipe(BaseModel):
    """All knobs, with the paper's values as defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Literal["paper", "quick"] = "paper"
    seed: int = Field(0, ge=0, lt=2**31, description="One number makes the whole job repeatable.")

    # Instructions (paper §2, App. C, Table 6)
    num_examples: int = Field(5000, ge=0, le=1_000_000, description="Generated examples to accept (seeds come on top).")
    max_prompts: int = Field(
        20_000, ge=0, description="Prompts after which generation ends with what it has, whatever num_examples says."
    )
    prompt_style: PromptStyle = Field(
        "list",
        description="list: the paper's numbered list of new tasks. anchored: seeds of one task, a new input for it.",
    )
    seeds_per_prompt: int = Field(3, ge=1, le=20, description="Random seeds shown in a prompt.")
    tasks_per_prompt: int = Field(20, ge=2, le=50, description="Items a list prompt asks for, the seeds included.")
    instruction_temperature: float = Field(1.0, ge=0, le=2)
    instruction_top_p: float = Field(0.98, gt=0, le=1)
    instruction_max_new_tokens: int = Field(1024, ge=8, le=8192)
    novelty_threshold: float = Field(
        0.7, gt=0, le=1, description="Reject new text whose ROUGE-L F with any seed or accepted item is above this."
    )
    min_words: int = Field(
        3,
        ge=1,
        description="Shortest instruction of a list and text of an anchored prompt, words; less if its seeds are.",
    )
    max_words: int = Field(150, ge=10, description="Longest instruction or input, words.")

    # Responses (App. C: no demonstrations)
    response_shots: int = Field(0, ge=0, le=10, description="Same-task seeds shown when answering; 0 is the paper's.")
    response_temperature: float = Field(0.0, ge=0, le=2)
    response_max_new_tokens: int = Field(256, ge=1, le=8192)

    # Training (App. A, C)
    lora_rank: int = Field(8, ge=1, le=256)
    lora_alpha: int = Field(16, ge=1)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    batch_size: int = Field(32, ge=1, description="Rows an optimizer step.")
    micro_batch_tokens: int = Field(4096, ge=64, description="Padded tokens a forward pass; bounds memory.")
    learning_rate: float = Field(3e-4, gt=0, le=0.1)
    epochs: int = Field(3, ge=1, le=100)
    warmup_fraction: float = Field(0.03, ge=0, lt=1, description="Share of the steps with a rising learning rate.")
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    max_length: int = Field(1024, ge=32, le=131_072, description="Tokens a row; longer rows are dropped and counted.")
    max_grad_norm: float = Field(1.0, gt=0)

    # Evaluation
    holdout_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of each task's seeds held out and never trained on when no evaluation is given.",
    )
    evaluation_max_new_tokens: int = Field(128, ge=1, le=8192, description="The same for base and expert.")
    promotion: Literal["unless_worse", "always"] = Field(
        "unless_worse", description="unless_worse: the gate keeps out an adapter whose interval lies below the base."
    )
    evaluation_stop: tuple[str, ...] = Field(
        ("\n\n", "###"), description="Texts that end an answer besides end-of-sequence; the same for base and expert."
    )

    @model_validator(mode="after")
    def _agrees(self) -> Recipe:
        if self.prompt_style == "list" and self.seeds_per_prompt >= self.tasks_per_prompt:
            raise ValueError("tasks_per_prompt must exceed seeds_per_prompt: the seeds are the list's first items")
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # minutes on two CPU cores with a base of 135 M parameters; measured on seeds held out, see docs/decisions
    "quick": {
        "prompt_style": "anchored",
        "num_examples": 60,
        "max_prompts": 96,
        "instruction_temperature": 0.8,
        "instruction_max_new_tokens": 110,
        "response_shots": 2,
        "response_max_new_tokens": 64,
        "batch_size": 8,
        "micro_batch_tokens": 1024,
        "learning_rate": 1e-3,
        "max_length": 512,
        "evaluation_max_new_tokens": 64,
    },
}


def make_recipe(overrides: dict[str, Any] | None = None) -> Recipe:
    """The preset named in ``overrides`` (default ``paper``) with the other keys laid over it; raises InvalidInput."""
    given = dict(overrides or {})
    preset = given.get("preset", "paper")
    if preset not in PRESETS:
        raise InvalidInput([Problem("recipe.preset", f"unknown preset {preset!r}; there are: {', '.join(PRESETS)}")])
    try:
        return Recipe.model_validate({**PRESETS[preset], **given, "preset": preset})
    except ValidationError as error:
        raise InvalidInput([_problem(fault) for fault in error.errors()]) from error


def _problem(fault: Any) -> Problem:
    field = ".".join(["recipe", *(str(part) for part in fault["loc"])])
    if fault["type"] == "extra_forbidden":
        near = get_close_matches(str(fault["loc"][-1]), Recipe.model_fields, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(Recipe.model_fields)}"
        return Problem(field, f"unknown recipe key; {remedy}")
    return Problem(field, fault["msg"])
