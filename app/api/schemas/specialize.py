"""The bodies POST /specialize and /seeds/doctor take, for their documentation; the checks are the service's."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.services.domain_names import PATTERN, RULE


class SeedBody(BaseModel):
    """One labelled example."""

    model_config = ConfigDict(extra="forbid")

    task: str = Field(description="The kind of task; examples with the same name belong together.")
    instruction: str = Field(description="What to do.")
    input: str = Field("", description="The text it is about; may be empty.")
    output: str = Field(description="The answer to learn.")
    references: list[str] | None = Field(None, description="Further right answers, for judging.")


class DomainSeedsBody(BaseModel):
    """One of several domains that an expert is made of."""

    model_config = ConfigDict(extra="forbid")

    domain: str = Field(pattern=PATTERN, description="Its name, which prompts tell.")
    description: str | None = Field(None, description="What it is about.")
    seeds: list[SeedBody] | None = Field(
        None, description="Its examples. Left out: those of its newest job, with their evaluation items."
    )
    evaluation: list[SeedBody] | None = Field(None, description="Examples of it to judge by.")


class ExamplesBody(BaseModel):
    """Labelled examples and the recipe they are for."""

    model_config = ConfigDict(extra="forbid")

    description: str | None = Field(None, description="What the domain is about.")
    seeds: list[SeedBody] | None = Field(None, description="Labelled examples to learn from.", min_length=1)
    domains: list[str | DomainSeedsBody] | None = Field(
        None,
        description="In place of seeds: two or more domains whose examples one expert learns together, each by the "
        "name of a domain that had a job before or with its examples. A task name that they share is told apart as "
        "law/summary.",
        min_length=2,
    )
    evaluation: list[SeedBody] | None = Field(
        None, description="Examples to judge by, none of them a seed. Left out: part of the seeds is held out."
    )
    labelled: list[SeedBody] | None = Field(
        None,
        description="Your own labelled rows, to compare with: what learning from them alone reaches. The expert does "
        "not learn them; seeds may be among them, evaluation items may not.",
    )
    recipe: dict[str, Any] | None = Field(
        None, description='{"preset": "paper" or "quick", and any knob to set otherwise}; left out: paper.'
    )
    base: str | None = Field(None, description="The base this service runs; left out: that one.")
    webhook_url: str | None = Field(
        None,
        description="Where the service is to tell that the job ended or waits for a person (docs/webhooks.md). Needs "
        "SELFSPEC_WEBHOOK_SECRET to be set.",
        examples=["https://example.com/hooks/selfspec"],
    )


class SpecializeRequest(ExamplesBody):
    """Seeds and wishes as JSON."""

    domain: str = Field(pattern=PATTERN, description=f"The expert's name: {RULE}.")


class DoctorRequest(ExamplesBody):
    """The same, to be examined; only a dry run needs the domain."""

    domain: str | None = Field(None, pattern=PATTERN, description=f"The expert's name: {RULE}.")


_FILE = {"type": "string", "format": "binary"}
FORM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "SpecializeForm",
    "required": ["domain", "seeds"],
    "additionalProperties": False,
    "properties": {
        "domain": {
            "type": "string",
            "pattern": PATTERN,
            "description": f"The expert's name: {RULE}.",
            "example": "finance",
        },
        "description": {"type": "string", "description": "What the domain is about.", "example": ""},
        "seeds": {
            **_FILE,
            "description": "JSONL, one JSON list, or CSV with a header: task, instruction, input, output.",
        },
        "evaluation": {**_FILE, "description": "The same, to judge by. Left out: part of the seeds is held out."},
        "labelled": {**_FILE, "description": "The same, your own labelled rows, to compare the expert with."},
        "recipe": {"type": "string", "description": "A JSON object.", "example": '{"preset": "quick"}'},
        "base": {"type": "string", "description": "The base this service runs; left empty: that one.", "example": ""},
        "webhook_url": {"type": "string", "description": "Where to tell that the job ended or waits.", "example": ""},
    },
}
DOCTOR_FORM_SCHEMA: dict[str, Any] = {**FORM_SCHEMA, "title": "DoctorForm", "required": ["seeds"]}
