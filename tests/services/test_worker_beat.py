"""The sign that a worker lives, as its container's health check reads it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from app.core.errors import NotReady
from app.services.worker_beat import WorkerBeat, check_alive
from tests.services.house import LEASE_SECONDS, House


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def check(house: House, host: str | None = None) -> None:
    check_alive(house.database, within_seconds=LEASE_SECONDS, clock=house.clock, host=host)


def test_a_worker_lives_until_it_ends(house: House) -> None:
    beat = WorkerBeat(house.database, slots=1, every_seconds=5, clock=house.clock)
    with pytest.raises(NotReady, match="no worker of this machine"):
        check(house)
    beat.beat()
    check(house)
    beat.end()
    with pytest.raises(NotReady, match="no worker of this machine"):
        check(house)


def test_a_worker_that_is_silent_for_a_lease_does_not_live(house: House) -> None:
    """It hangs, or was killed: its row stands still."""
    WorkerBeat(house.database, slots=1, every_seconds=5, clock=house.clock).beat()
    house.now += timedelta(seconds=LEASE_SECONDS + 1)
    with pytest.raises(NotReady, match="was last seen"):
        check(house)


def test_workers_of_other_machines_do_not_count(house: House) -> None:
    WorkerBeat(house.database, slots=1, every_seconds=5, clock=house.clock).beat()
    with pytest.raises(NotReady, match="no worker of this machine"):
        check(house, host="another")
