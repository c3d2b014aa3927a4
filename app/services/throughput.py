"""What stages took: written down as each one ends, read back as the paces and yields that the next job is reckoned by.

Of each stage its amount of work, its seconds and the memory are kept, with what had been planned: so the plan's
quantities are set right by what came of earlier ones, and the seconds follow from the pace.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from statistics import median
from typing import Any, Self

from app.core.records import BaseInfo
from app.models import StageRun, Throughput
from app.services.machine import machine_of
from app.services.work import TOKENS, Sort, Work, written_cost
from app.storage.database import UnitOfWork

START = "start"  # in place of a stage: a job's process, until its base is loaded
NEWEST = 20  # stages of a kind that are reckoned by
_UNKNOWN_SPREAD = math.log(1.5)  # how far one measurement alone may be off
_SURE = 1.28  # standard deviations around the middle four fifths
_MOST_CORRECTION = 10.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds for an amount: ``fixed`` and so many ``a_unit``. ``factor``: four of five lie within it, up and down.

    ``num_jobs``: that it was measured on.
    """

    fixed: float
    a_unit: float
    factor: float
    num_jobs: int

    def seconds(self, amount: float) -> float:
        return self.fixed + self.a_unit * amount


def record(
    uow: UnitOfWork,
    run: StageRun,
    sort: Sort,
    work: Work,
    *,
    base: BaseInfo,
    peak_bytes: int,
    figures: Mapping[str, Any],
    now: datetime,
) -> None:
    """Write down what a stage took that has just ended. ``figures``: prompts and accepted items, where it has some."""
    cost = written_cost(base)
    uow.throughputs.put(
        Throughput(
            job_id=run.job_id,
            stage=run.stage,
            kind=sort.kind,
            machine=machine_of(base),
            base=base.name,
            unit=sort.unit,
            amount=sort.amount(work, written_cost=cost),
            seconds=run.worked_seconds,
            peak_bytes=peak_bytes,
            created_at=now,
            detail={
                "variant": sort.variant,
                "written_cost": cost,
                "work": work.to_row(),
                "planned": run.planned,
                **{name: figures[name] for name in ("prompts", "prompts_read", "accepted") if name in figures},
            },
        )
    )


def record_start(uow: UnitOfWork, job_id: str, *, base: BaseInfo, seconds: float, now: datetime) -> None:
    """Write down how long a job's process took until its base was loaded."""
    uow.throughputs.put(
        Throughput(
            job_id=job_id,
            stage=START,
            kind=START,
            machine=machine_of(base),
            base=base.name,
            unit="starts",
            amount=1.0,
            seconds=seconds,
            created_at=now,
        )
    )


class Experience:
    """What past jobs of one base took on one machine."""

    def __init__(self, rows: Sequence[Throughput], *, written_cost: float | None = None) -> None:
        """``rows``: the newest first. ``written_cost``: of a machine without any."""
        self._rows = rows
        costs = (row.detail["written_cost"] for row in rows if "written_cost" in row.detail)
        self.written_cost = next(costs, written_cost or 1.0)
        self.machine = rows[0].machine if rows else None

    @classmethod
    def read(cls, uow: UnitOfWork, base: str, *, info: BaseInfo | None = None) -> Self:
        """``info``: the base as it is loaded here, to prefer this machine; None: wherever it worked last."""
        rows = uow.throughputs.newest(base, machine=machine_of(info) if info else None)
        return cls(rows, written_cost=written_cost(info) if info else None)

    @property
    def num_jobs(self) -> int:
        return len({row.job_id for row in self._rows})

    @property
    def start(self) -> Pace | None:
        """Of a job's process, until its base is loaded; the amount is 1."""
        rows = [row for row in self._rows if row.kind == START][:NEWEST]
        return _pace(rows, [row.amount for row in rows])

    def pace(self, sort: Sort) -> Pace | None:
        """Of the variant, or of the kind while there is none of it; None: no such stage has ended yet."""
        rows = [] if sort.kind == "adapter" else self._alike(sort)  # to learn takes what it takes, whatever it is
        rows = rows or self._kind(sort)
        return _pace(rows, [sort.amount(_work(row), written_cost=self.written_cost) for row in rows])

    def corrected(self, sort: Sort, work: Work) -> Work:
        """The plan's quantities, as far from the plan as those of earlier stages of the same variant were."""
        rows = [row for row in self._alike(sort) if row.detail.get("planned")]
        if not rows:
            return work
        pairs = [(Work.of(row.detail["planned"]), _work(row)) for row in rows]
        return replace(
            work,
            read=work.read * _ratio((done.read, plan.read, done.asked, plan.asked) for plan, done in pairs),
            written=work.written * _ratio((done.written, plan.written, done.asked, plan.asked) for plan, done in pairs),
            trained=work.trained * _ratio((done.trained, plan.trained, 1.0, 1.0) for plan, done in pairs),
        )

    def accepted_a_prompt(self, sort: Sort) -> float | None:
        """The yield of earlier instructions of this variant."""
        rows = [row.detail for row in self._alike(sort) if row.detail.get("prompts_read")]
        return sum(row["accepted"] for row in rows) / sum(row["prompts_read"] for row in rows) if rows else None

    def peak_bytes(self, sort: Sort) -> int | None:
        """The most that a stage of this kind took."""
        return max((row.peak_bytes for row in self._rows if row.kind == sort.kind and row.peak_bytes), default=None)

    def slowness(self) -> float:
        """How many times longer than assumed its stages took: what an assumption about another kind is set right by."""
        ratios = [
            row.seconds / row.detail["planned"]["assumed_seconds"]
            for row in self._rows
            if row.unit == TOKENS and (row.detail.get("planned") or {}).get("assumed_seconds")
        ]
        return median(ratios) if ratios else 1.0

    def _kind(self, sort: Sort) -> list[Throughput]:
        """The newest of the kind that are counted in the same unit."""
        return [row for row in self._rows if (row.kind, row.unit) == (sort.kind, sort.unit)][:NEWEST]

    def _alike(self, sort: Sort) -> list[Throughput]:
        """The newest of the very sort."""
        rows = (row for row in self._rows if row.kind == sort.kind and row.detail.get("variant") == sort.variant)
        return list(islice(rows, NEWEST))


def _pace(rows: Sequence[Throughput], amounts: Sequence[float]) -> Pace | None:
    pace = fit(zip(amounts, (row.seconds for row in rows), strict=True))
    return pace and replace(pace, num_jobs=len({row.job_id for row in rows}))


def fit(points: Iterable[tuple[float, float]]) -> Pace | None:
    """The pace that passes closest, in ratios, to (amount, seconds); None without a point.

    With amounts that differ twofold it may have a fixed part; neither part is ever below zero.
    """
    known = [(amount, seconds) for amount, seconds in points if amount > 0 and seconds > 0]
    if not known:
        return None
    amounts = [amount for amount, _ in known]
    fixed, a_unit = 0.0, math.exp(sum(math.log(seconds / amount) for amount, seconds in known) / len(known))
    if max(amounts) >= 2 * min(amounts) and (line := _line(known)) is not None:
        fixed, a_unit = line
    squares = [math.log(seconds / (fixed + a_unit * amount)) ** 2 for amount, seconds in known]
    spread = math.sqrt((_UNKNOWN_SPREAD**2 + sum(squares)) / (len(known) + 1))
    return Pace(fixed, a_unit, math.exp(_SURE * spread), len(known))


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Least squares of the relative errors of fixed + a_unit × amount; None where a part would be negative."""
    inverse = [(1 / seconds, amount / seconds) for amount, seconds in points]
    uu, uv, vv = (sum(one[i] * one[j] for one in inverse) for i, j in ((0, 0), (0, 1), (1, 1)))
    u, v = (sum(one[i] for one in inverse) for i in (0, 1))
    determinant = uu * vv - uv * uv
    if determinant <= 1e-12 * uu * vv:
        return None
    fixed, a_unit = (u * vv - v * uv) / determinant, (v * uu - u * uv) / determinant
    return (fixed, a_unit) if fixed >= 0 and a_unit > 0 else None


def _ratio(sums: Iterable[tuple[float, float, float, float]]) -> float:
    """Done by planned, each a request: (done, planned, requests done, requests planned) of several stages."""
    done, planned, asked, foreseen = (sum(column) for column in zip(*sums, strict=True))
    if min(done, planned, asked, foreseen) <= 0:
        return 1.0
    ratio: float = done / asked / (planned / foreseen)
    return min(_MOST_CORRECTION, max(1 / _MOST_CORRECTION, ratio))


def _work(row: Throughput) -> Work:
    return Work.of(row.detail.get("work", {}))
