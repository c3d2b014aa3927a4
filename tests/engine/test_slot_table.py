"""Who sits in which slot, and who leaves for whom."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.core.errors import NotReady
from app.engine.slot_table import SlotTable


@pytest.fixture
def often() -> Iterator[None]:
    """Threads take turns after every few instructions."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_slots_are_taken_from_one_up_and_the_base_keeps_its_own() -> None:
    table = SlotTable(3)
    assert [table.take(adapter) for adapter in "abc"] == [(1, None), (2, None), (3, None)]


def test_the_least_recently_used_leaves() -> None:
    table = SlotTable(2)
    table.take("a")
    table.take("b")
    assert table.use("a") == 1
    assert table.take("c") == (2, "b")
    assert table.use("b") is None
    table.take("a")  # taking it again is using it
    assert table.take("d") == (2, "c")


def test_taking_again_keeps_the_slot() -> None:
    table = SlotTable(1)
    assert table.take("a") == (1, None)
    assert table.take("a") == (1, None)


def test_a_released_slot_is_taken_next() -> None:
    table = SlotTable(3)
    for adapter in "abc":
        table.take(adapter)
    assert table.release("b") == 2
    assert table.use("b") is None
    assert table.take("d") == (2, None)


def test_adapters_in_use_stay() -> None:
    table = SlotTable(2)
    table.take("a")
    table.take("b")
    assert table.take("c", in_use={"a"}) == (2, "b")
    with pytest.raises(NotReady, match="SELFSPEC_ADAPTER_SLOTS"):
        table.take("d", in_use={"a", "c"})
    assert (table.use("a"), table.use("c")) == (1, 2)


def test_using_and_taking_at_once_never_fails(often: None) -> None:
    table = SlotTable(2)

    def use(adapter: str) -> None:
        for _ in range(5000):
            table.use(adapter)

    def take(adapter: str) -> None:
        for number in range(5000):
            table.take(f"{adapter}{number % 3}")

    with ThreadPoolExecutor() as pool:
        work = [pool.submit(use, f"a{number % 3}") for number in range(3)]
        for done in [*work, pool.submit(take, "a")]:
            done.result()
