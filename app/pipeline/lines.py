"""Who answers in an evaluation, how each is asked, and with how many demonstrations."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.errors import AdapterRefused
from app.core.records import Line
from app.pipeline.bench import LABELLED, SEEDS_BY_EPOCHS, SEEDS_BY_STEPS, AdapterPlace, Bench, Champion
from app.pipeline.template import ALPACA, BARE, Template

CONTROLS = {
    SEEDS_BY_EPOCHS: Line.SEEDS_SAME_EPOCHS,
    SEEDS_BY_STEPS: Line.SEEDS_SAME_STEPS,
    LABELLED: Line.SUPERVISED,
}  # stage: line


@dataclass(frozen=True, slots=True)
class Contender:
    """One line. ``place`` None: the bare base. ``shots``: the numbers of demonstrations it is asked with."""

    line: str
    place: AdapterPlace | None
    template: Template
    shots: tuple[int, ...]

    @property
    def adapter(self) -> str | None:
        return None if self.place is None else self.place.id


def line_up(bench: Bench) -> list[Contender]:
    """All lines of a job, the expert last.

    Everybody is asked without demonstrations. With them only those that the paper's tables show so: the base in both
    forms, the expert, and the champion that it may follow. The rest (controls, labelled rows, the job's other
    candidates) explain the gain without demonstrations, and every line costs time.
    """
    shots = tuple(sorted(bench.recipe.evaluation_shots))
    adapters, expert = bench.adapters(), bench.expert()
    own = next(name for name, place in adapters.items() if place == expert)
    others = {CONTROLS.get(name, name): place for name, place in adapters.items() if name != own}
    champion = _champion(bench, expert)
    return [
        Contender(Line.BASE, None, BARE, shots),
        Contender(Line.BASE_TEMPLATE, None, ALPACA, shots),
        *(Contender(name, place, ALPACA, (0,)) for name, place in others.items()),
        *([Contender(Line.CHAMPION, champion.place, champion.template, shots)] if champion else []),
        Contender(Line.EXPERT, expert, ALPACA, shots),
    ]


def _champion(bench: Bench, expert: AdapterPlace) -> Champion | None:
    """What the domain serves now, unless it is the expert itself or cannot answer on this base."""
    champion = bench.champion
    if champion is None or champion.place.id == expert.id:
        return None
    try:
        bench.engine.attach(champion.place.id, champion.place.folder)
    except AdapterRefused as refusal:
        told = f"{champion.name}, which the domain serves now, is left out of the comparison: {refusal.message}"
        bench.tell("champion_left_out", told, data={"champion": champion.name}, is_warning=True)
        return None
    return champion
