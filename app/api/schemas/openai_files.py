"""Files as OpenAI's API shows them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class FileBody(BaseModel):
    """One file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int = Field(description="Seconds since 1970.")
    expires_at: int | None = Field(description="Seconds since 1970; null: it stays until it is deleted.")
    filename: str
    purpose: str = Field(description="As it was sent; fine-tune-results: a job made it.")
    status: Literal["processed"] = "processed"
    status_details: None = None


class FileList(BaseModel):
    """Some files."""

    object: Literal["list"] = "list"
    data: list[FileBody]
    first_id: str | None
    last_id: str | None = Field(description="Give it as `after` to read on.")
    has_more: bool


class FileDeletedBody(BaseModel):
    """A file that is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


FORM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "FileForm",
    "required": ["file", "purpose"],
    "additionalProperties": False,
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "JSONL, at most SELFSPEC_MAX_UPLOAD_BYTES."},
        "purpose": {"type": "string", "description": "What it is for.", "example": "fine-tune"},
        "expires_after[anchor]": {
            "type": "string",
            "enum": ["created_at"],
            "description": "From when `expires_after[seconds]` counts.",
        },
        "expires_after[seconds]": {
            "type": "integer",
            "minimum": 3600,
            "maximum": 2_592_000,
            "description": "The file is deleted so long after it was sent; left out: never.",
        },
    },
}
