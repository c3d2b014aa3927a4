"""Which seeds are shown as demonstrations, and that none of those is held out to judge."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from app.core.records import Seed
from app.services.shots import Demonstrations, order
from tests.services.house import EVALUATION, SEEDS, House

ROWS = [Seed("ab"[number % 3 == 0], "say it", str(number), "yes") for number in range(12)]


def test_the_first_few_stand_for_all_tasks_alike() -> None:
    """A task of four and one of eight: both half, as long as both have seeds left."""
    shown = order(ROWS, seed=1)
    assert Counter(row.task for row in shown[:8]) == {"a": 4, "b": 4}
    assert Counter(shown) == Counter(ROWS)


def test_the_order_depends_on_the_seed_alone() -> None:
    assert order(ROWS, seed=1) == order(ROWS, seed=1) != order(ROWS, seed=2)


def test_seeds_that_were_held_out_are_not_shown(tmp_path: Path) -> None:
    house = House(tmp_path)
    demonstrations = Demonstrations(house.database, house.artifacts)
    split, whole = house.order(evaluation=None), house.order(domain="law", evaluation=EVALUATION)
    learned = demonstrations.choose(split, 32)
    assert 0 < len(learned) < len(SEEDS)
    assert len(demonstrations.choose(whole, 32)) == len(SEEDS)
    assert demonstrations.choose(split, 2) == learned[:2]
    house.run(split)
    judged = {row["id"] for row in house.rows(split, "metrics")}
    assert judged
    assert judged.isdisjoint(seed.id for seed in learned)
