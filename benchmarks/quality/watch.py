"""Seconds that stages were at work while someone watched: of a job that was interrupted, the service's own figures
count the pause, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Watch:
    """Of one job; kept in a file that goes on from call to call."""

    def __init__(self, path: Path, job_id: str, *, clock: Callable[[], float]) -> None:
        self._path, self._job_id, self._clock = path, job_id, clock
        self._all: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.is_file() else {}
        self.seconds = self._all.setdefault(job_id, {})
        self._running: str | None = None
        self._since = clock()

    def see(self, job: dict[str, Any]) -> None:
        """Look at the job: what passed since the last look goes to the stage that was at work then."""
        now = self._clock()
        if self._running is not None:
            self.seconds[self._running] = self.seconds.get(self._running, 0.0) + now - self._since
        self._running = next((stage["stage"] for stage in job["progress"] if stage["status"] == "running"), None)
        self._since = now

    def keep(self) -> None:
        """Into the file, whole or not at all."""
        draft = self._path.with_suffix(".tmp")
        draft.write_text(json.dumps(self._all), encoding="utf-8")
        draft.replace(self._path)
