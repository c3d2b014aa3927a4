"""Can this process do its work now? One answer a part: database, broker, base, and whatever was added."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import SelfspecError
from app.core.ports import Engine
from app.storage.database import Database
from app.storage.disk import check_space
from app.storage.job_queue import JobQueue


@dataclass(frozen=True, slots=True)
class Check:
    """How one part is; ``detail`` is for people."""

    ok: bool
    detail: str


class Readiness:
    """Asks every part; each question may block for seconds."""

    def __init__(self, database: Database, queue: JobQueue, engine: Engine) -> None:
        self._database, self._queue, self._engine = database, queue, engine
        self._added: dict[str, Callable[[], Check]] = {}

    def add(self, part: str, question: Callable[[], Check]) -> None:
        """One more part to ask, at any time."""
        self._added[part] = question

    def checks(self) -> dict[str, Callable[[], Check]]:
        """The questions by the name of their part, so that they can be asked side by side."""
        ours = {"database": self._check_database, "broker": self._check_broker, "base": self._check_base}
        return {**ours, **self._added}

    def _check_database(self) -> Check:
        return _ask(self._database.check, "answers")

    def _check_broker(self) -> Check:
        return _ask(self._queue.check, "answers")

    def _check_base(self) -> Check:
        check = _ask(lambda: self._engine.wait_ready(0), "loaded")
        base = self._engine.base
        if not check.ok or base is None:
            return check
        return Check(True, f"{base.name} ({base.quantization}, {base.dtype}, {base.device})")


def check_disk(folders: Iterable[Path], *, min_bytes: int) -> Check:
    """Whether anything can be written to each, and there is room for ``min_bytes``."""
    return _ask(lambda: [check_space(folder, num_bytes=min_bytes) for folder in folders], "can be written to")


def _ask(question: Callable[[], object], good: str) -> Check:
    """A failure is an answer here, whatever raised it."""
    try:
        question()
    except SelfspecError as error:
        return Check(False, error.message)
    except Exception as error:
        return Check(False, f"{type(error).__name__}: {error}")
    return Check(True, good)
