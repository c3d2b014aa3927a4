"""The bodies POST /specialize takes, for its documentation; the checks are the service's, which tells all faults."""

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


class SpecializeRequest(BaseModel):
    """Seeds and wishes as JSON."""

    model_config = ConfigDict(extra="forbid")

    domain: str = Field(pattern=PATTERN, description=f"The expert's name: {RULE}.")
    description: str | None = Field(None, description="What the domain is about.")
    seeds: list[SeedBody] = Field(description="Labelled examples to learn from.", min_length=1)
    evaluation: list[SeedBody] | None = Field(
        None, description="Examples to judge by, none of them a seed. Left out: part of the seeds is held out."
    )
    recipe: dict[str, Any] | None = Field(
        None, description='{"preset": "paper" or "quick", and any knob to set otherwise}; left out: paper.'
    )
    base: str | None = Field(None, description="The base this service runs; left out: that one.")


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
        "recipe": {"type": "string", "description": "A JSON object.", "example": '{"preset": "quick"}'},
        "base": {"type": "string", "description": "The base this service runs; left empty: that one.", "example": ""},
    },
}
