"""The body of every refusal, and how routes document theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field

from app.core.errors import InvalidInput, Problem, SelfspecError


class ProblemBody(BaseModel):
    """One fault of a request."""

    field: str = Field(description="The field that cannot be used.")
    reason: str
    line: int | None = Field(None, description="Line of the file, or position in the JSON list, from 1.")
    source: str | None = Field(None, description="Which part of the request: seeds, evaluation, body, query …")


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str = Field(description="Stable, for programs.")
    message: str = Field(description="For people; names the remedy.")
    param: str | None = Field(None, description="The field or name it is about.")
    problems: list[ProblemBody] | None = Field(None, description="All faults of a 413 or 422, not only the first.")
    domains: list[str] | None = Field(None, description="Of domain_not_found: the domains that have an expert.")


class ErrorBody(BaseModel):
    """Every answer that is not a success."""

    error: ErrorDetail


def refusals(**examples: SelfspecError) -> dict[int | str, dict[str, Any]]:
    """Documentation of a route's refusals: by name an error it can raise. Every route may also fail with 500."""
    return document(examples, body=ErrorBody, render=lambda error: (error.status, {"error": error.to_dict()}))


def document(
    examples: Mapping[str, SelfspecError], *, body: type[BaseModel], render: Callable[[SelfspecError], tuple[int, Any]]
) -> dict[int | str, dict[str, Any]]:
    """The same for refusals of any shape: ``render`` makes the status and what a ``body`` describes."""
    documented: dict[int | str, dict[str, Any]] = {}
    for name, error in {**examples, "internal_error": SelfspecError("something went wrong inside the service")}.items():
        status, value = render(error)
        about = documented.setdefault(
            status,
            {
                "model": body,
                "description": HTTPStatus(status).phrase,
                "content": {"application/json": {"examples": {}}},
            },
        )
        about["content"]["application/json"]["examples"][name] = {"value": value}
    return documented


INVALID_QUERY = InvalidInput([Problem("limit", "Input should be less than or equal to 100", source="query")])
