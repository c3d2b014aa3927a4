"""What a job will take: its plan, made from the request and from what stands in the database. Stores nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.core.ports import Engine
from app.core.records import BaseInfo
from app.models import SetRole
from app.pipeline.holdout import Split
from app.services.assumed_pace import FACTOR, Assumed
from app.services.request_checks import CheckedRequest
from app.services.throughput import Experience
from app.services.work import Sort, Work
from app.services.work_plan import Plan, make_plan
from app.services.work_texts import Texts, Wanted
from app.storage.database import Database, UnitOfWork


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds; four of five lie between ``low`` and ``high``. ``num_jobs`` that it was measured on; 0: assumed."""

    seconds: float
    low: float
    high: float
    num_jobs: int

    @classmethod
    def of(cls, seconds: float, factor: float, num_jobs: int) -> Span:
        return cls(seconds, seconds / factor, seconds * factor, num_jobs)


@dataclass(frozen=True, slots=True)
class Forecast:
    """A plan, and what it is reckoned by."""

    plan: Plan
    experience: Experience
    base: BaseInfo | None  # None: it is still loading, so nothing is assumed of it

    def rows(self) -> dict[str, dict[str, Any]]:
        """To be kept with the job's stages, by name; ``read_planned`` reads them."""
        return {each.stage: self._row(each.sort, each.work) for each in self.plan.stages}

    def _row(self, sort: Sort, work: Work) -> dict[str, Any]:
        row = {"kind": sort.kind, "variant": sort.variant, **work.to_row()}
        return row if self.base is None else {**row, "assumed_seconds": Assumed(self.base).seconds(sort, work)}


def read_planned(row: Mapping[str, Any]) -> tuple[Sort, Work]:
    """What ``Forecast.rows`` made."""
    return Sort(row["kind"], row["variant"]), Work.of(row)


def span_of(sort: Sort, work: Work, experience: Experience, *, assumed_seconds: float | None) -> Span | None:
    """The seconds of a stage: measured, or assumed and set right by other stages' times; None: nothing is known."""
    if (pace := experience.pace(sort)) is not None:
        amount = sort.amount(experience.corrected(sort, work), written_cost=experience.written_cost)
        return Span.of(pace.seconds(amount), pace.factor, pace.num_jobs)
    if assumed_seconds is None:
        return None
    return Span.of(assumed_seconds * experience.slowness(), FACTOR, 0)


class Forecaster:
    """Makes forecasts of checked requests."""

    def __init__(self, database: Database, engine: Engine) -> None:
        self._database, self._engine = database, engine

    def forecast(self, request: CheckedRequest, split: Split) -> Forecast:
        """``split``: of the request's seeds. Blocks on the database, and counts tokens of some texts."""
        base = self._engine.base
        with self._database.session(read_only=True) as uow:
            experience = Experience.read(uow, request.base, info=base)
            wanted = _wanted(uow, request, split)
        return Forecast(make_plan(wanted, Texts(wanted, self._engine), experience), experience, base)


def _wanted(uow: UnitOfWork, request: CheckedRequest, split: Split) -> Wanted:
    domain, most = uow.domains.find(request.domain), request.recipe.off_domain_items
    learned = {request.domain, *(seed.domain for seed in split.training)}
    sets = uow.seed_sets.newest(SetRole.EVALUATION, besides=learned) if most else ()
    return Wanted(
        recipe=request.recipe,
        split=split,
        labelled=request.labelled,
        domain=request.domain,
        description=request.description or (domain.description if domain else None) or "",
        has_champion=domain is not None and domain.champion_id is not None,
        off_domain=sum(min(most, each.num_rows) for each in sets),
    )
