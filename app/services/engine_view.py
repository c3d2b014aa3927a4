"""What the engine holds and does now, with the names people know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.core.ports import Engine
from app.core.records import BaseInfo, EngineState, ExpertLoad
from app.core.request_notes import BASE
from app.services.expert_names import ExpertNames
from app.services.warmup import WarmUp, WarmUpReport


@dataclass(frozen=True, slots=True)
class NamedLoad:
    """One expert's load; ``name`` is finance@v1, ``base``, or the id of an adapter that has no other name."""

    name: str
    load: ExpertLoad


@dataclass(frozen=True, slots=True)
class EngineView:
    """One look."""

    base: BaseInfo
    state: EngineState
    slots_used: int
    experts: tuple[NamedLoad, ...]  # the busiest first
    counters: Mapping[str, int | float]
    warm_up: WarmUpReport | None


class EngineViewer:
    """Looks into the engine; may block on the database for a name it has not met."""

    def __init__(self, engine: Engine, *, names: ExpertNames, warm_up: WarmUp | None) -> None:
        self._engine, self._names, self._warm_up = engine, names, warm_up

    def look(self) -> EngineView:
        """Raises NotReady until the base is loaded."""
        base, state = self._engine.wait_ready(0), self._engine.state()
        experts = [NamedLoad(self._name(load.adapter), load) for load in state.experts]
        experts.sort(key=lambda expert: (-expert.load.running - expert.load.waiting, expert.name))
        return EngineView(
            base=base,
            state=state,
            slots_used=sum(load.adapter is not None and load.slot is not None for load in state.experts),
            experts=tuple(experts),
            counters=dict(self._engine.stats()),
            warm_up=None if self._warm_up is None else self._warm_up.report,
        )

    def _name(self, adapter: str | None) -> str:
        return str(BASE) if adapter is None else str(self._names.of(adapter))
