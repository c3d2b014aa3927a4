"""What a stage has the engine do, in numbers that its time is proportional to; and the meter of a stage at work."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from app.core.ports import Engine
from app.core.recipe import Recipe
from app.core.records import BaseInfo
from app.pipeline.bench import SEEDS_BY_STEPS, Stage

TOKENS, TRAINED, COMPARED, ANSWERED, STAGES = "tokens", "tokens trained", "comparisons", "rows answered", "stages"
WRITTEN_COSTS = {"cpu": 1.5, "cuda": 16.0}  # a token written, in tokens read: on CUDA only reading fills the device
_DECIDES = {"choice", "gate"}  # kinds that only look at figures


@dataclass(frozen=True, slots=True)
class Work:
    """``asked``: requests to the engine; ``read``: tokens of prompts that it computed; ``written``: tokens of answers;
    ``trained``: tokens that were learned from; ``compared``: pairs of a generated row and an evaluation item."""

    asked: float = 0.0
    read: float = 0.0
    written: float = 0.0
    trained: float = 0.0
    compared: float = 0.0

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From what ``to_row`` made, or a part of it."""
        return cls(**{name: float(row[name]) for name in cls.__dataclass_fields__ if name in row})

    def to_row(self) -> dict[str, float]:
        return asdict(self)

    def __add__(self, other: Work) -> Work:
        return Work(**{name: value + other.to_row()[name] for name, value in self.to_row().items()})


@dataclass(frozen=True, slots=True)
class Sort:
    """Stages that are alike: of one ``kind``, and of one ``variant`` where the kind works in several ways."""

    kind: str
    variant: str = ""

    @property
    def unit(self) -> str:
        """What its time is proportional to."""
        if self.kind == "responses" and self.variant in ("sequence", "token"):
            return ANSWERED  # what is scored and mixed beside is counted by no engine
        return {"adapter": TRAINED, "dataset": COMPARED, **dict.fromkeys(_DECIDES, STAGES)}.get(self.kind, TOKENS)

    def amount(self, work: Work, *, written_cost: float) -> float:
        """So many of its unit."""
        if self.unit == TOKENS:
            return work.read + written_cost * work.written
        return {TRAINED: work.trained, COMPARED: work.compared, ANSWERED: work.asked, STAGES: 1.0}[self.unit]


def sort_of(stage: Stage, recipe: Recipe) -> Sort:
    """What a stage is like; the paces and yields of its like are what it is reckoned by."""
    variants = {
        "instructions": recipe.prompt_style,
        "responses": recipe.retrieval if recipe.retrieval != "none" else "adapters" if stage.writers else "base",
        "adapter": _learns(stage),
        "metrics": ",".join(map(str, sorted(recipe.evaluation_shots))),
    }
    return Sort(stage.kind, variants.get(stage.kind, ""))


def _learns(stage: Stage) -> str:
    if stage.is_candidate:
        return "dataset"
    return "steps" if stage.name == SEEDS_BY_STEPS else "seeds"


def written_cost(base: BaseInfo) -> float:
    """A token written, in tokens read."""
    return WRITTEN_COSTS["cuda" if base.device.startswith("cuda") else "cpu"]


class WorkMeter:
    """Counts from ``begin`` on, beside what earlier attempts had counted."""

    def __init__(self, engine: Engine, *, seconds: Callable[[], float] = time.monotonic) -> None:
        self._engine, self._clock = engine, seconds
        self._began: float | None = None
        self._before, self._seconds_before = Work(), 0.0

    @property
    def is_running(self) -> bool:
        return self._began is not None

    def begin(self, *, seconds: float, work: Work) -> None:
        """``seconds``, ``work``: of earlier attempts."""
        self._seconds_before, self._before = seconds, work
        self._at_begin = self._count()
        self._began = self._clock()

    @property
    def seconds(self) -> float:
        """Worked, over all attempts."""
        return self._seconds_before + (0.0 if self._began is None else self._clock() - self._began)

    @property
    def work(self) -> Work:
        """Of the engine, over all attempts."""
        if self._began is None:
            return self._before
        now, then = self._count().to_row(), self._at_begin.to_row()
        return self._before + Work(**{name: now[name] - then[name] for name in now})

    def _count(self) -> Work:
        stats = self._engine.stats()
        return Work(asked=stats["requests"], read=stats["prefill_tokens"], written=stats["generated_tokens"])


def finished_work(sort: Sort, work: Work, *, done: int, detail: Mapping[str, Any], compared: int) -> Work:
    """What the engine counted, with what only the stage knows; ``compared``: of a dataset."""
    if sort.kind == "adapter":
        return replace(work, trained=float(detail.get("tokens") or 0))
    if sort.kind == "dataset":
        return replace(work, compared=float(compared))
    return replace(work, asked=float(done)) if sort.unit == ANSWERED else work
