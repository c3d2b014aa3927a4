"""The bench of one stage of one job: ``app.pipeline.bench.Bench`` over the artifact store and the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from app.core.event_types import EventType
from app.core.ports import Engine
from app.core.recipe import Recipe
from app.core.records import Seed
from app.models import EventLevel, StageRun
from app.pipeline.bench import ROWS, AdapterPlace, Champion, Retriever, Stage
from app.pipeline.holdout import Split
from app.services.throughput import record
from app.services.work import Work, WorkMeter, finished_work, sort_of
from app.storage.artifacts import Artifact, append_rows, read_rows, truncate_last, truncate_torn
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
    parents: tuple[str, ...]  # artifact digests of what was sent
    labelled: tuple[Seed, ...] = ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a stage may look at beside its job, found when it is asked for."""

    retriever: Callable[[], Retriever | None] = lambda: None
    champion: Callable[[], Champion | None] = lambda: None
    off_domain: Callable[[], Mapping[str, Sequence[Seed]]] = dict


class JobBench:
    """Files grow in the stage's draft; progress and events are written under the job's lease."""

    def __init__(
        self,
        order: Order,
        stage: Stage,
        *,
        folder: Path,
        checkpoints: Path,
        made: Mapping[str, Artifact],
        kinds: Mapping[str, str],
        engine: Engine,
        around: Surroundings,
        writing: Callable[[], AbstractContextManager[UnitOfWork]],
        clock: Callable[[], datetime],
        pause_point: Callable[[], None],
    ) -> None:
        """``made``: what the stages made, by name; ``kinds``: every stage's kind; ``pause_point`` may raise Held."""
        self.recipe, self.domain, self.description = order.recipe, order.domain, order.description
        self.split, self.labelled = order.split, order.labelled
        self.stage, self.folder, self.checkpoints, self.engine = stage, folder, checkpoints, engine
        self.done, self.total, self.detail = 0, 0, dict[str, Any]()
        self._job_id, self._made, self._kinds, self._around = order.job_id, made, kinds, around
        self._writing, self._clock, self._pause_point = writing, clock, pause_point
        self._told_at = 0.0
        self._meter = WorkMeter(engine)

    def begin(self, run: StageRun) -> None:
        """The work begins, or goes on from what earlier attempts at this ``run`` had done."""
        self._meter.begin(seconds=run.worked_seconds, work=Work.of(run.work))

    def finish(self, uow: UnitOfWork) -> None:
        """The product is whole: note how much was made, and what it took, for later jobs to be reckoned by."""
        now, name, sort = self._clock(), self.stage.name, sort_of(self.stage, self.recipe)
        judging = {item.id for item in (*self.split.evaluation, *self.split.holdout)}
        compared = max(0, self.done - len(self.split.training)) * max(1, len(judging))
        work = finished_work(sort, self._meter.work, done=self.done, detail=self.detail, compared=compared)
        uow.stage_runs.progress(self._job_id, name, done=self.done, total=self.total, detail=self.detail)
        uow.stage_runs.note_work(self._job_id, name, seconds=self._meter.seconds, work=work.to_row(), now=now)
        run, peak_bytes = uow.stage_runs.get(self._job_id, name), self.engine.state().peak_bytes
        base = self.engine.wait_ready()
        record(uow, run, sort, work, base=base, peak_bytes=peak_bytes, figures=self.detail, now=now)

    @property
    def retriever(self) -> Retriever | None:
        return self._around.retriever()

    @property
    def champion(self) -> Champion | None:
        return self._around.champion()

    @property
    def off_domain(self) -> Mapping[str, Sequence[Seed]]:
        return self._around.off_domain()

    def product(self, kind: str, file: str = ROWS) -> Iterator[dict[str, Any]]:
        reads = self.stage.reads
        names = [kind] if kind in reads else [name for name in reads if self._kinds[name] == kind]
        if not names:
            raise LookupError(f"stage {self.stage.name} reads no {kind}")
        artifact = self._made.get(names[0])  # None: it was skipped
        return iter(()) if artifact is None else read_rows(artifact.folder / file)

    def adapters(self) -> dict[str, AdapterPlace]:
        return {
            name: AdapterPlace(adapter_id(artifact), artifact.folder)
            for name in self.stage.reads
            if self._kinds[name] == "adapter" and (artifact := self._made.get(name)) is not None
        }

    def expert(self) -> AdapterPlace:
        adapters = self.adapters()
        if "choice" in self.stage.reads:
            return adapters[next(self.product("choice"))["stage"]]
        return next(iter(adapters.values()))

    def writers(self) -> list[AdapterPlace]:
        places = [self.adapters()[name] for name in self.stage.writers]
        for place in places:
            self.engine.attach(place.id, place.folder)
        return places

    def kept(self, file: str, *, unit: int) -> Iterator[dict[str, Any]]:
        path = self.folder / file
        truncate_torn(path)
        if excess := sum(1 for _ in read_rows(path)) % unit:
            self.keep_lease()
            truncate_last(path, excess)
        return read_rows(path)

    def append(self, file: str, rows: Iterable[object]) -> None:
        with self._writing() as uow:
            self._note_work(uow)
        append_rows(self.folder / file, rows)
        self.saved()

    def saved(self) -> None:
        """What the next attempt need not make again is one more thing that this one did not die of."""
        with self._writing() as uow:
            uow.jobs.forget_deaths(self._job_id)
        self._pause_point()

    def write(self, file: str, rows: Iterable[object]) -> None:
        self.keep_lease()
        path = self.folder / file
        path.unlink(missing_ok=True)
        append_rows(path, rows)

    def keep_lease(self) -> None:
        """Renew the lease or raise LeaseLost: the folder is the next owner's too, so touch it under the lease only."""
        with self._writing():
            pass

    def progress(self, done: int, total: int, *, detail: Mapping[str, Any] | None = None) -> None:
        self.done, self.total = done, total
        self.detail |= detail or {}
        if time.monotonic() - self._told_at < _TELL_EVERY_SECONDS:
            return
        with self._writing() as uow:
            uow.stage_runs.progress(self._job_id, self.stage.name, done=done, total=total, detail=self.detail)
            self._note_work(uow)
        self._told_at = time.monotonic()

    def tell(self, type: EventType, message: str, *, data: Mapping[str, Any], is_warning: bool = False) -> None:
        level = EventLevel.WARNING if is_warning else EventLevel.INFO
        with self._writing() as uow:
            now = self._clock()
            uow.events.add(self._job_id, type, message, now=now, level=level, stage=self.stage.name, data=data)

    def _note_work(self, uow: UnitOfWork) -> None:
        if self._meter.is_running:
            meter, name = self._meter, self.stage.name
            work = meter.work.to_row()
            uow.stage_runs.note_work(self._job_id, name, seconds=meter.seconds, work=work, now=self._clock())


def adapter_id(artifact: Artifact) -> str:
    """An adapter is called by the first 16 digits of its artifact's digest."""
    return artifact.digest[:16]
