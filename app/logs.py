"""How log lines look, as text or as JSON, and the line each request leaves. Knows nothing of who writes them."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

from app.core.request_notes import CURRENT, RequestNotes

_ACCESS = logging.getLogger("selfspec.access")
_PROBES = frozenset({"/health", "/ready", "/metrics"})  # asked every few seconds by machines


def configure(*, level: str, style: Literal["text", "json"], stream: TextIO | None = None) -> None:
    """Send everything this process logs, libraries included, to ``stream`` (standard error) in this style."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class TextFormatter(logging.Formatter):
    """For people: time, level, logger, message, and the request it belongs to."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        notes = CURRENT.get()
        line = super().formatMessage(record)
        return line if notes is None else f"{line} [{notes.id}]"


class JsonFormatter(logging.Formatter):
    """For machines: one object a line, in ASCII; a record's ``fields`` (by ``extra``) are keys of their own."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (notes := CURRENT.get()) is not None:
            line["request_id"] = notes.id
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_request(notes: RequestNotes) -> None:
    """The access line of a request that has ended; one of a probe only shows at level debug."""
    level = logging.DEBUG if notes.route in _PROBES else logging.INFO
    if not _ACCESS.isEnabledFor(level):
        return
    message = f"{notes.method} {notes.path} {notes.status} {notes.seconds:.3f} s"
    if notes.experts:
        asked = ",".join(map(str, notes.experts))
        message += f" {asked} {notes.prompt_tokens}+{notes.generated_tokens} tokens"
    _ACCESS.log(level, "%s", message, extra={"fields": notes.fields()})
