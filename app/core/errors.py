"""Every error selfspec raises on purpose.

    SelfspecError                 code, HTTP status, message, param
    ├── InvalidInput        422   problems: every fault of an upload at once (line, field, reason)
    │   └── TooLarge        413   more than the service accepts
    ├── Unauthorized        401   an operator's key is missing or wrong
    ├── Forbidden           403   switched off by a setting, or outside what the settings allow
    ├── NotFound            404   job, adapter, artifact …
    │   └── UnknownDomain   404   names the domains there are
    ├── Conflict            409   illegal move, idempotency key used for another body, wrong base
    ├── NotReady            503   the base is still loading, no worker yet …
    │   └── DatabaseAway    503   the database does not answer
    ├── DeadlineExceeded    504   the request's own time ran out before a word was written
    ├── Overloaded          429   too many requests wait
    ├── AdapterRefused      409   an adapter that does not fit or does not act on the base
    ├── ArtifactDamaged     500   a stored artifact is not what its manifest says
    ├── StageFailed         500   a stage's failure: names the stage, keeps the cause, says whose fault
    └── SetupError          500   the machine: port in use, package missing … (one line for the person)
        └── DiskFull        507   nothing can be written: full, quota used up, read-only, not permitted

Foreign exceptions are translated where they are met (engine, storage, HTTP), never inside pipeline stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum


class Fault(StrEnum):
    """Whose mistake ended a job."""

    USER = "user"
    SERVICE = "service"


class SelfspecError(Exception):
    """Root of the tree. ``code`` is stable for programs, ``message`` is for people and names the remedy."""

    code = "internal_error"
    status = 500

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def to_dict(self) -> dict[str, object]:
        """The body of ``{"error": …}``."""
        return {"code": self.code, "message": self.message, "param": self.param}


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of an upload. ``line`` is the 1-based line of a file, or the 1-based position in a JSON list."""

    field: str
    reason: str
    line: int | None = None
    source: str | None = None

    def __str__(self) -> str:
        where = [self.source, f"line {self.line}" if self.line is not None else None, self.field]
        return f"{', '.join(part for part in where if part)}: {self.reason}"


class InvalidInput(SelfspecError):
    """The request cannot be used; carries all its problems, not only the first."""

    code = "invalid_input"
    status = 422

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        shown = "; ".join(str(problem) for problem in self.problems[:3])
        rest = len(self.problems) - 3
        super().__init__(
            f"{shown}; and {rest} more" if rest > 0 else shown,
            param=self.problems[0].field if self.problems else None,
        )

    def to_dict(self) -> dict[str, object]:
        return {**super().to_dict(), "problems": [asdict(problem) for problem in self.problems]}


class TooLarge(InvalidInput):
    """The upload is larger than the service accepts."""

    code = "too_large"
    status = 413


class Unauthorized(SelfspecError):
    """The operator's key is missing or wrong."""

    code = "unauthorized"
    status = 401


class Forbidden(SelfspecError):
    """No key helps: a setting says no. The message names the setting."""

    code = "forbidden"
    status = 403


class NotFound(SelfspecError):
    """What was named does not exist."""

    code = "not_found"
    status = 404


class UnknownDomain(NotFound):
    """No expert serves this domain; the message lists those that are served."""

    code = "domain_not_found"

    def __init__(self, domain: str, known: Sequence[str]) -> None:
        self.domains = tuple(known)
        served = ", ".join(known) if known else "none yet: POST /specialize makes one"
        super().__init__(f"no expert serves domain {domain!r}; domains with an expert: {served}", param="domain")

    def to_dict(self) -> dict[str, object]:
        return {**super().to_dict(), "domains": list(self.domains)}


class Conflict(SelfspecError):
    """The request contradicts the state of things."""

    code = "conflict"
    status = 409


class NotReady(SelfspecError):
    """Asked too early; asking again later helps."""

    code = "not_ready"
    status = 503


class DatabaseAway(NotReady):
    """The database does not answer, or stays locked. Whoever works for it waits until it is back."""


class DeadlineExceeded(SelfspecError):
    """The request's ``timeout_s`` passed before anything was written."""

    code = "deadline_exceeded"
    status = 504


class Overloaded(SelfspecError):
    """More requests wait than the service takes; asking again later helps."""

    code = "overloaded"
    status = 429


class AdapterRefused(SelfspecError):
    """An adapter that does not fit the base, or changes nothing. It is never replaced by the base."""

    code = "adapter_refused"
    status = 409


class ArtifactDamaged(SelfspecError):
    """A file of a stored artifact was changed, shortened or removed after it was committed."""

    code = "artifact_damaged"


class StageFailed(SelfspecError):
    """A stage of a job failed; ``__cause__`` keeps what was raised."""

    code = "stage_failed"

    def __init__(
        self,
        stage: str,
        message: str,
        *,
        fault: Fault = Fault.SERVICE,
        param: str | None = None,
        is_worth_keeping: bool = False,
    ) -> None:
        """``is_worth_keeping``: what the stage has made so far is whole as far as it goes."""
        super().__init__(f"stage {stage}: {message}", param=param)
        self.stage = stage
        self.fault = fault
        self.is_worth_keeping = is_worth_keeping


class SetupError(SelfspecError):
    """The machine stands in the way; the message is the one line a person needs."""

    code = "setup_error"


class DiskFull(SetupError):
    """Nothing can be written: the disk is full, its quota used up, it is read-only or closed to this user."""

    code = "disk_full"
    status = 507
