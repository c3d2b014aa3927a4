"""Bodies of /health and /ready."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class HealthBody(BaseModel):
    """The process lives."""

    status: Literal["ok"]


class CheckBody(BaseModel):
    """One part."""

    ok: bool
    detail: str


class ReadyBody(BaseModel):
    """Whether the service can do its work, part by part."""

    ready: bool
    checks: dict[str, CheckBody]
