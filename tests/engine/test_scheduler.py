"""Who runs next, and in whose slot. No torch runs here."""

from __future__ import annotations

import pytest

from app.core.records import GenerationRequest
from app.engine.scheduler import TURN, Errand, Scheduler
from app.engine.sequences import Sequence
from app.engine.slot_table import SlotTable


def anything(sequence: Sequence) -> bool:
    return True


class Line:
    """A scheduler and requests whose age is their number."""

    def __init__(self, num_slots: int) -> None:
        self.scheduler = Scheduler(SlotTable(num_slots))
        self.clock = 0.0

    def ask(self, *adapters: str | None) -> list[Sequence]:
        asked = []
        for adapter in adapters:
            self.clock += 1
            request = GenerationRequest("", adapter=adapter)
            sequence = Sequence(request, [1], None, None, frozenset(), submitted_at=self.clock)  # type: ignore[arg-type]
            self.scheduler.add(sequence)
            asked.append(sequence)
        return asked

    def start(self, most: int = 100) -> list[Sequence]:
        started: list[Sequence] = []
        while len(started) < most and (got := self.scheduler.next(anything)) is not None:
            started.append(got[0])
        return started


def adapters(items: list[Sequence]) -> list[str | None]:
    return [item.adapter for item in items]


def test_a_flood_for_one_expert_does_not_keep_others_waiting() -> None:
    line = Line(num_slots=2)
    line.ask(*["a"] * 20, "b", None)
    assert adapters(line.start(4)) == ["a", "b", None, "a"]


def test_equals_are_served_in_the_order_they_came() -> None:
    line = Line(num_slots=3)
    asked = line.ask("b", None, "a")
    assert line.start() == asked


def test_what_does_not_fit_is_waited_for_and_not_passed_by() -> None:
    line = Line(num_slots=1)
    large, small = line.ask(None, None)
    assert line.scheduler.next(lambda item: item is small) is None
    assert line.start() == [large, small]


def test_the_least_recently_used_idle_expert_gives_up_its_slot() -> None:
    line = Line(num_slots=2)
    for sequence in line.ask("a", "b", "a"):
        assert line.scheduler.next(anything)
        line.scheduler.ended(sequence)
    line.ask("c")
    got = line.scheduler.next(anything)
    assert got is not None
    assert got[1] == (2, "b", True)


def test_an_expert_in_use_keeps_its_slot_and_the_others_wait() -> None:
    line = Line(num_slots=1)
    running, waiting = line.ask("a", "b")
    assert line.start() == [running]
    assert line.scheduler.slot_waits == 1
    assert line.start() == []
    assert line.scheduler.slot_waits == 1, "counted once a request"
    line.scheduler.ended(running)
    assert line.start() == [waiting]


def test_an_expert_that_is_always_asked_for_yields_its_slot_in_turn() -> None:
    """Without turns an expert whose requests never cease would hold the only slot for ever."""
    line = Line(num_slots=1)
    running = []
    line.ask(*["a"] * 2)
    running += line.start()
    line.ask("b")
    for _ in range(5 * TURN):
        line.ask("a")
        running += line.start()
        if "b" in adapters(running):
            break
        line.scheduler.ended(running.pop(0))
    assert "b" in adapters(running)


@pytest.mark.parametrize("num_experts", [3, 9])
def test_more_experts_than_slots_all_get_on(num_experts: int) -> None:
    line = Line(num_slots=2)
    names = [f"e{number}" for number in range(num_experts)]
    line.ask(*(names * 10))
    served: list[str | None] = []
    while len(line.scheduler):
        started = line.start(4)
        assert started
        served += adapters(started)
        for item in started:
            line.scheduler.ended(item)
    assert sorted(map(str, served)) == sorted(names * 10)


def test_a_pinned_expert_is_never_evicted() -> None:
    line = Line(num_slots=1)
    (first,) = line.ask("a")
    line.start()
    line.scheduler.ended(first)
    line.scheduler.pin("a")
    line.ask("b")
    assert line.start() == []
    line.scheduler.release("a")
    assert adapters(line.start()) == ["b"]


def test_an_errand_needs_a_slot_but_no_place_in_the_batch() -> None:
    line = Line(num_slots=1)
    (running,) = line.ask("a")
    line.start()
    errand, other = Errand("b", lambda slot: slot), Errand(None, lambda slot: slot)
    line.scheduler.add(errand)
    assert line.scheduler.next_errand() is None
    line.scheduler.add(other)
    assert line.scheduler.next_errand() == (other, (0, None, False)), "the bare base needs none"
    line.scheduler.ended(running)
    assert line.scheduler.next_errand() == (errand, (1, "a", True))
    assert line.scheduler.running == {}


def test_what_is_unwanted_leaves_the_line() -> None:
    line = Line(num_slots=1)
    first, second, third = line.ask("a", "b", "a")
    assert line.scheduler.remove(lambda item: item is not second) == [first, third]
    assert line.scheduler.waiting == {"b": 1}
