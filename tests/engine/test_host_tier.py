"""Adapters in host memory: read once, kept within the budget, and never taken from those who use them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.core.errors import AdapterRefused, NotReady
from app.engine.adapter_files import AdapterFile
from app.engine.host_tier import HostTier


def make_file(num_bytes: int = 100) -> AdapterFile:
    return AdapterFile(rank=1, pairs={}, base_fingerprint=None, num_bytes=num_bytes)


def reading(num_bytes: int = 100) -> Callable[[], AdapterFile]:
    return lambda: make_file(num_bytes)


def never() -> AdapterFile:
    raise AssertionError("it is there already")


@pytest.fixture
def full() -> HostTier:
    """Room for three; a is the least recently used."""
    tier = HostTier(300)
    for adapter in "abc":
        tier.load(adapter, reading())
    return tier


def test_it_is_read_once() -> None:
    tier = HostTier(300)
    file = tier.load("a", reading())
    assert tier.load("a", never) is tier.get("a") is file
    assert "a" in tier and "b" not in tier
    assert tier.get("b") is None
    assert (tier.sizes(), tier.num_bytes) == ({"a": 100}, 100)


def test_the_least_recently_used_leaves(full: HostTier) -> None:
    full.get("a")
    full.load("d", reading())
    assert set(full.sizes()) == {"a", "c", "d"}
    full.load("c", never)
    full.load("e", reading(200))
    assert set(full.sizes()) == {"c", "e"}
    assert (full.num_bytes, full.evictions) == (300, 3)


def test_looking_is_not_using(full: HostTier) -> None:
    assert "a" in full
    full.load("d", reading())
    assert "a" not in full


def test_what_is_held_or_pinned_stays(full: HostTier) -> None:
    assert full.hold("a") and full.hold("a")
    full.pin("b")
    full.load("d", reading())
    assert set(full.sizes()) == {"a", "b", "d"}
    full.release("a")
    assert full.hold("d")
    with pytest.raises(NotReady, match="SELFSPEC_ADAPTER_BYTES"):
        full.load("e", reading())
    assert set(full.sizes()) == {"a", "b", "d"}, "nobody leaves for one that does not fit"
    full.release("a")
    full.load("e", reading())
    assert set(full.sizes()) == {"b", "d", "e"}


def test_nobody_leaves_where_too_few_could(full: HostTier) -> None:
    full.hold("a")
    with pytest.raises(NotReady):
        full.load("d", reading(300))
    assert full.num_bytes == 300
    assert full.evictions == 0


def test_a_pin_may_come_before_the_adapter() -> None:
    tier = HostTier(100)
    tier.pin("a")
    tier.load("a", reading())
    with pytest.raises(NotReady):
        tier.load("b", reading())
    tier.drop("a")
    tier.load("a", reading())
    tier.load("b", reading())  # its pin went with it


def test_larger_than_the_budget_is_refused(full: HostTier) -> None:
    with pytest.raises(AdapterRefused, match="SELFSPEC_ADAPTER_BYTES"):
        full.load("d", reading(301))
    assert full.num_bytes == 300


def test_what_is_not_there_cannot_be_held(full: HostTier) -> None:
    assert not full.hold("d")
    full.drop("a")
    assert not full.hold("a")
    assert full.num_bytes == 200


def test_a_dropped_adapter_that_is_held_can_be_released(full: HostTier) -> None:
    full.hold("a")
    full.drop("a")
    full.load("a", reading())
    full.release("a")
    for adapter in "def":
        full.load(adapter, reading())
    assert "a" not in full


def test_a_failed_reading_is_told_and_tried_again() -> None:
    tier = HostTier(300)

    def fails() -> AdapterFile:
        raise AdapterRefused("damaged", param="adapter")

    with pytest.raises(AdapterRefused, match="damaged"):
        tier.load("a", fails)
    assert tier.load("a", reading()).num_bytes == 100


class Slow:
    """A reading that a test lets go on."""

    def __init__(self) -> None:
        self.times = 0
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self) -> AdapterFile:
        self.times += 1
        self.has_begun.set()
        assert self.may_end.wait(timeout=60)
        return make_file()


def test_callers_of_one_adapter_wait_for_its_one_reading_and_others_do_not() -> None:
    tier, slow = HostTier(300), Slow()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(tier.load, "a", slow)
        slow.has_begun.wait(timeout=60)
        others = [pool.submit(tier.load, "a", never) for _ in range(3)]
        assert tier.load("b", reading()) is tier.get("b")
        assert tier.get("a") is None
        slow.may_end.set()
        assert {id(each.result(timeout=60)) for each in (first, *others)} == {id(tier.get("a"))}
    assert slow.times == 1


def test_dropped_while_it_is_read_it_is_not_kept() -> None:
    tier, slow = HostTier(300), Slow()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(tier.load, "a", slow)
        slow.has_begun.wait(timeout=60)
        tier.drop("a")
        slow.may_end.set()
        assert first.result(timeout=60).num_bytes == 100
    assert "a" not in tier
    assert tier.num_bytes == 0


def test_many_threads_leave_the_count_right() -> None:
    tier = HostTier(250)

    def churn(number: int) -> None:
        for turn in range(200):
            adapter = f"{(number + turn) % 5}"
            tier.load(adapter, reading())
            if tier.hold(adapter):
                tier.release(adapter)
            if turn % 7 == 0:
                tier.drop(adapter)

    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(churn, number) for number in range(4)]:
            done.result()
    assert tier.num_bytes == sum(tier.sizes().values()) <= tier.budget
    tier.load("all", reading(250))  # nothing is held any more
    assert set(tier.sizes()) == {"all"}
