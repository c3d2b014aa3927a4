"""What one HTTP request did, noted while it is answered: whoever serves it writes, logs, metrics and traces read.

The notes travel in a context variable, which reaches the threads a route works in too. Knows no HTTP library.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

from app.core.records import Completion


class ExpertName(NamedTuple):
    """Who answers, as people and labels name it."""

    domain: str
    version: str

    def __str__(self) -> str:
        return self.domain if self.domain == self.version else f"{self.domain}@v{self.version}"


BASE = ExpertName("base", "base")  # the bare base; no version number looks like this
OTHER = ExpertName("other", "other")  # an adapter that has no name, or one too many for a label


@dataclass(slots=True)
class RequestNotes:
    """One request; its figures are whole when it has ended. A request may ask several experts: tokens are added up."""

    id: str
    method: str
    path: str
    started_at: float  # Unix time, seconds
    traceparent: str | None = None  # the caller's own trace, as W3C Trace Context writes it
    route: str = "unmatched"  # the path with its parameters' names
    status: int = 499  # until an answer begins: what is left if the caller goes before
    seconds: float = 0.0  # to the last byte of the answer
    experts: dict[ExpertName, None] = field(default_factory=dict)  # in the order they were asked
    prompt_tokens: int = 0
    generated_tokens: int = 0
    queue_seconds: float = 0.0  # of the answer that waited longest
    first_token_seconds: float = 0.0  # of the answer that took longest to begin

    def add(self, completion: Completion) -> None:
        """Count an answer."""
        self.prompt_tokens += completion.prompt_tokens
        self.generated_tokens += completion.completion_tokens
        self.queue_seconds = max(self.queue_seconds, completion.queue_seconds)
        self.first_token_seconds = max(self.first_token_seconds, completion.first_token_seconds)

    def fields(self) -> dict[str, str | int | float]:
        """What there is to tell, by the names that logs and traces share; nothing of answers if none was asked for."""
        told: dict[str, str | int | float] = {
            "request_id": self.id,
            "method": self.method,
            "path": self.path,
            "route": self.route,
            "status": self.status,
            "seconds": round(self.seconds, 6),
        }
        if self.experts:
            told |= {
                "domain": ",".join(name.domain for name in self.experts),
                "version": ",".join(name.version for name in self.experts),
                "prompt_tokens": self.prompt_tokens,
                "generated_tokens": self.generated_tokens,
                "queue_seconds": round(self.queue_seconds, 6),
                "first_token_seconds": round(self.first_token_seconds, 6),
            }
        return told


CURRENT: ContextVar[RequestNotes | None] = ContextVar("selfspec_request", default=None)
