"""The bench of one stage of one job: ``app.pipeline.bench.Bench`` over the artifact store and the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from app.core.ports import Engine
from app.core.recipe import Recipe
from app.models import EventLevel
from app.pipeline.bench import ROWS
from app.pipeline.holdout import Split
from app.storage.artifacts import Artifact, append_rows, read_rows, truncate_torn
from app.storage.database import UnitOfWork

_TELL_EVERY_SECONDS = 0.5  # least time between two writes of a stage's progress


@dataclass(frozen=True, slots=True)
class Order:
    """What a job is to make, read once."""

    job_id: str
    domain: str
    description: str
    recipe: Recipe
    split: Split
    parents: tuple[str, ...]  # artifact digests of the seed and evaluation sets


class JobBench:
    """Files grow in the stage's draft; progress and events are written under the job's lease."""

    def __init__(
        self,
        order: Order,
        stage: str,
        *,
        folder: Path,
        made: Mapping[str, Artifact],
        engine: Engine,
        writing: Callable[[], AbstractContextManager[UnitOfWork]],
        clock: Callable[[], datetime],
    ) -> None:
        self.recipe, self.domain, self.description = order.recipe, order.domain, order.description
        self.split, self.folder, self.engine = order.split, folder, engine
        self.done, self.total = 0, 0
        self._job_id, self._stage, self._made, self._writing, self._clock = order.job_id, stage, made, writing, clock
        self._told_at = 0.0

    def product(self, stage: str, file: str = ROWS) -> list[dict[str, Any]]:
        return list(read_rows(self._made[stage].folder / file))

    def adapter(self) -> tuple[str, Path]:
        return adapter_id(self._made["adapter"]), self._made["adapter"].folder

    def kept(self, file: str, *, unit: int) -> list[dict[str, Any]]:
        path = self.folder / file
        truncate_torn(path)
        rows = list(read_rows(path))
        whole = rows[: len(rows) - len(rows) % unit]
        if len(whole) < len(rows):
            self.write(file, whole)
        return whole

    def append(self, file: str, rows: Iterable[object]) -> None:
        self.keep_lease()
        append_rows(self.folder / file, rows)

    def write(self, file: str, rows: Iterable[object]) -> None:
        self.keep_lease()
        path = self.folder / file
        path.unlink(missing_ok=True)
        append_rows(path, rows)

    def keep_lease(self) -> None:
        """Renew the lease or raise LeaseLost: the folder is the next owner's too, so touch it under the lease only."""
        with self._writing():
            pass

    def progress(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        if time.monotonic() - self._told_at < _TELL_EVERY_SECONDS:
            return
        with self._writing() as uow:
            uow.stage_runs.progress(self._job_id, self._stage, done=done, total=total)
        self._told_at = time.monotonic()

    def tell(self, type: str, message: str, *, data: Mapping[str, Any], is_warning: bool = False) -> None:
        level = EventLevel.WARNING if is_warning else EventLevel.INFO
        with self._writing() as uow:
            now = self._clock()
            uow.events.add(self._job_id, type, message, now=now, level=level, stage=self._stage, data=data)


def adapter_id(artifact: Artifact) -> str:
    """An adapter is called by the first 16 digits of its artifact's digest."""
    return artifact.digest[:16]
