"""What a specialization would take, before anything is queued: tokens, seconds and memory by stage and in all.

Takes what a specialization takes, refuses what it refuses, and stores nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from app.core.errors import NotReady
from app.core.ports import Engine
from app.core.records import BaseInfo
from app.services.assumed_pace import FACTOR, Assumed
from app.services.forecast import Forecast, Forecaster, Span, span_of
from app.services.machine import machine_of
from app.services.outlook import Outlook
from app.services.request_checks import RawRequest, RequestChecker
from app.services.work import Work
from app.services.work_plan import Plan, PlannedStage
from app.storage.database import Database

How = Literal["measured", "assumed", "partly measured"]


@dataclass(frozen=True, slots=True)
class Memory:
    """Most bytes in use at once: of the device on CUDA, else of the job's process. ``num_jobs`` 0: assumed."""

    peak_bytes: int
    num_jobs: int


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """One stage. Tokens are the engine's: computed of prompts, written, and learned from."""

    stage: str
    kind: str
    requests: int
    read_tokens: int
    written_tokens: int
    trained_tokens: int
    time: Span
    memory: Memory


@dataclass(frozen=True, slots=True)
class Basis:
    """What an estimate stands on. ``machine``: where it was measured, which may be another than ``here``."""

    how: How
    num_jobs: int
    machine: str | None
    here: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of one job. ``reasons``: why it may not go ahead; without one it may."""

    domain: str
    base: str
    stages: tuple[StageEstimate, ...]
    start: Span  # of its process, until the base is loaded
    time: Span
    prompts: int
    examples: int
    memory: Memory
    free_bytes: int
    jobs_ahead: int
    queue_seconds: float | None  # None: nothing is known of the jobs ahead
    basis: Basis
    reasons: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether the memory that is free now suffices."""
        return self.memory.peak_bytes <= self.free_bytes

    @property
    def allowed_to_proceed(self) -> bool:
        return not self.reasons


class Estimator:
    """The use case "what would this take?"."""

    def __init__(
        self,
        database: Database,
        engine: Engine,
        *,
        checker: RequestChecker,
        forecaster: Forecaster,
        clock: Callable[[], datetime],
    ) -> None:
        self._database, self._engine, self._checker = database, engine, checker
        self._forecaster, self._clock = forecaster, clock

    def estimate(self, raw: RawRequest) -> Estimate:
        """Raises what starting the job would, and NotReady while the base is loading."""
        read = self._checker.read(raw)
        request = self._checker.accept(read, base=raw.base)
        if (base := self._engine.base) is None or read.split is None:
            raise NotReady("the base is still loading, and nothing is known of its size: ask again in a minute")
        forecast = self._forecaster.forecast(request, read.split)
        with self._database.session(read_only=True) as uow:
            outlook = Outlook.read(uow, self._clock())
        stages = tuple(_stages(forecast, base))
        start = _start(forecast, Assumed(base))
        memory = max((each.memory for each in stages), key=lambda each: each.peak_bytes)
        free_bytes = self._engine.state().free_bytes
        return Estimate(
            domain=request.domain,
            base=request.base,
            stages=stages,
            start=start,
            time=_sum([start, *(each.time for each in stages)]),
            prompts=forecast.plan.prompts,
            examples=forecast.plan.examples,
            memory=memory,
            free_bytes=free_bytes,
            jobs_ahead=len(outlook.jobs) - outlook.num_held,
            queue_seconds=outlook.wait_seconds,
            basis=_basis(forecast, [start, *(each.time for each in stages)], base),
            reasons=tuple(_reasons(forecast.plan, memory, free_bytes)),
        )


def _stages(forecast: Forecast, base: BaseInfo) -> Iterator[StageEstimate]:
    assumed = Assumed(base)
    for planned in forecast.plan.stages:
        work = forecast.experience.corrected(planned.sort, planned.work)
        span = span_of(
            planned.sort,
            planned.work,
            forecast.experience,
            assumed_seconds=assumed.seconds(planned.sort, planned.work),
        )
        assert span is not None
        yield _stage(planned, work, span, _memory(planned, forecast, assumed))


def _stage(planned: PlannedStage, work: Work, span: Span, memory: Memory) -> StageEstimate:
    return StageEstimate(
        stage=planned.stage,
        kind=planned.sort.kind,
        requests=round(work.asked),
        read_tokens=round(work.read),
        written_tokens=round(work.written),
        trained_tokens=round(work.trained),
        time=span,
        memory=memory,
    )


def _memory(planned: PlannedStage, forecast: Forecast, assumed: Assumed) -> Memory:
    measured = forecast.experience.peak_bytes(planned.sort)
    if measured is None:
        return Memory(assumed.peak_bytes, 0)
    return Memory(measured, forecast.experience.num_jobs)


def _start(forecast: Forecast, assumed: Assumed) -> Span:
    pace = forecast.experience.start
    if pace is None:
        return Span.of(assumed.start_seconds, FACTOR, 0)
    return Span.of(pace.seconds(1.0), pace.factor, pace.num_jobs)


def _sum(spans: Sequence[Span]) -> Span:
    """All together: what goes slowly goes slowly everywhere, so the ends are added up too."""
    return Span(
        sum(span.seconds for span in spans),
        sum(span.low for span in spans),
        sum(span.high for span in spans),
        min(span.num_jobs for span in spans),
    )


def _basis(forecast: Forecast, spans: Sequence[Span], base: BaseInfo) -> Basis:
    measured = [span.num_jobs > 0 for span in spans]
    how: How = "measured" if all(measured) else "partly measured" if any(measured) else "assumed"
    experience, here = forecast.experience, machine_of(base)
    notes = [] if all(measured) else [Assumed(base).text]
    if experience.machine not in (None, here):
        notes.append(f"measured on another machine than this one: {experience.machine}")
    if not forecast.plan.is_yield_measured and forecast.plan.prompts:
        share = forecast.plan.examples / forecast.plan.prompts
        notes.append(f"assumed that a prompt leads to {share:.2g} accepted examples (POST /seeds/doctor tries it)")
    return Basis(how, experience.num_jobs, experience.machine, here, tuple(notes))


def _reasons(plan: Plan, memory: Memory, free_bytes: int) -> Iterator[str]:
    """What stands against the job though the request is in order."""
    if memory.peak_bytes > free_bytes:
        told = f"it takes about {memory.peak_bytes:,} bytes of memory, and {free_bytes:,} are free"
        yield f"{told}: it would wait for more; recipe.micro_batch_tokens bounds what training takes"
    if plan.prompts and not plan.examples:
        yield f"no example is expected from {plan.prompts:,} prompts: raise recipe.max_prompts, or try other seeds"
