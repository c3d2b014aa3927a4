"""Which seeds stand before an evaluation item."""

from __future__ import annotations

from app.pipeline.demonstrations import Demonstrations
from tests.pipeline.samples import seeds

SEEDS = seeds(4, "tone", "sense", "sound")


def test_seeds_of_the_same_task_and_fewer_are_the_first_of_more() -> None:
    shown = Demonstrations(SEEDS, seed=0, most=5)
    assert {seed.task for seed in shown.of("sense", 4)} == {"sense"}
    assert shown.of("sense", 1) == shown.of("sense", 4)[:1]
    assert shown.of("sense", 0) == ()


def test_a_task_with_too_few_is_helped_out_by_all_others_in_turn() -> None:
    shown = Demonstrations(SEEDS, seed=0, most=9).of("tone", 9)
    assert [seed.task for seed in shown] == ["tone"] * 4 + ["sense", "sound"] * 2 + ["sense"]
    assert len(set(shown)) == 9
    unknown = Demonstrations(SEEDS, seed=0, most=3).of("taste", 3)
    assert [seed.task for seed in unknown] == ["sense", "sound", "tone"]
    assert Demonstrations([], seed=0, most=3).of("tone", 3) == ()


def test_the_seed_number_alone_chooses() -> None:
    """Not the order in which the seeds came, nor what was asked before."""
    first, other = Demonstrations(SEEDS, seed=0, most=2), Demonstrations(SEEDS, seed=1, most=2)
    other_order = Demonstrations(sorted(SEEDS, key=lambda seed: seed.task), seed=0, most=2)
    tasks = ("tone", "sense", "sound")
    chosen = [first.of(task, 2) for task in tasks]
    assert [other_order.of(task, 2) for task in reversed(tasks)] == chosen[::-1]
    assert [other.of(task, 2) for task in tasks] != chosen
