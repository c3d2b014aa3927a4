"""What is held out: of every task a share, always the same, and never learned."""

from __future__ import annotations

from collections import Counter

import pytest

from app.core.errors import InvalidInput
from app.core.records import Seed
from app.pipeline.holdout import Split, split_seeds
from tests.pipeline.samples import seed, seeds


def split(given: list[Seed], *, fraction: float = 0.2, seed: int = 0) -> Split:
    return split_seeds(given, [], fraction=fraction, seed=seed)


def sizes(items: tuple[Seed, ...]) -> dict[str, int]:
    return dict(Counter(item.task for item in items))


def test_every_task_gives_its_share() -> None:
    given = seeds(10, "a", "b") + seeds(4, "c") + seeds(2, "d") + seeds(1, "e")
    found = split(given)
    assert found.is_holdout
    assert sizes(found.evaluation) == {"a": 2, "b": 2, "c": 1, "d": 1}
    assert sizes(found.training) == {"a": 8, "b": 8, "c": 3, "d": 1, "e": 1}


def test_both_parts_keep_the_order_and_make_up_the_whole() -> None:
    given = seeds(10, "a", "b")
    found = split(given)
    assert set(found.training).isdisjoint(found.evaluation)
    assert sorted([*found.training, *found.evaluation], key=given.index) == given
    assert list(found.training) == sorted(found.training, key=given.index)


def test_the_split_is_a_function_of_the_seed_number() -> None:
    given = seeds(10, "a", "b")
    assert split(given) == split(given)
    assert len({split(given, seed=number).evaluation for number in range(10)}) > 5


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_a_task_keeps_one_seed_and_gives_one(fraction: float) -> None:
    for number in range(2, 12):
        found = split(seeds(number), fraction=fraction)
        assert min(len(found.training), len(found.evaluation)) == 1


def test_one_question_is_never_on_both_sides() -> None:
    """Seeds that ask the same with other answers, other spacing or in another task were learned and judged by."""
    twins = [Seed("t", "Ask it.", f"x{number}", output) for number in range(5) for output in ("one", "two")]
    shared = [Seed(task, "ASK  it.", "both", "o") for task in ("t", "u")]
    for number in range(20):
        found = split([*twins, *shared, Seed("u", "Ask it.", "y", "o")], seed=number, fraction=0.5)
        asked = [
            {(row.instruction.casefold().split()[0], row.input) for row in part}
            for part in (found.training, found.evaluation)
        ]
        assert asked[0].isdisjoint(asked[1])
        assert all(asked)


def test_another_task_never_takes_a_tasks_only_question() -> None:
    shared = [Seed("t", "Ask it.", f"x{number}", "o") for number in range(3)] + [Seed("u", "Ask it.", "x0", "o")]
    assert all("u" in sizes(split(shared, seed=number).training) for number in range(20))


def test_an_uploaded_evaluation_set_leaves_the_seeds_whole() -> None:
    items = [seed(77)]
    found = split_seeds(seeds(3), items, fraction=0.5, seed=0)
    assert found == Split(tuple(seeds(3)), tuple(items), is_holdout=False)


@pytest.mark.parametrize("given", [seeds(1, "a", "b"), [Seed("t", "i", "x", "one"), Seed("t", "i", "x", "two")]])
def test_nothing_to_hold_out_is_the_users_to_mend(given: list[Seed]) -> None:
    with pytest.raises(InvalidInput, match="send evaluation"):
        split(given)


def test_a_job_that_chooses_holds_seeds_out_beside_its_evaluation_set() -> None:
    items = [seed(100)]
    found = split_seeds(seeds(10), items, fraction=0.2, seed=0, chooses=True)
    assert (found.evaluation, found.is_holdout, len(found.holdout)) == (tuple(items), False, 2)
    assert set(found.training) | set(found.holdout) == set(seeds(10))
    assert set(found.training).isdisjoint(found.holdout)


def test_a_job_that_cannot_hold_out_says_what_else_to_ask_for() -> None:
    with pytest.raises(InvalidInput, match="one iteration and no sizes"):
        split_seeds([seed(1)], [seed(2)], fraction=0.2, seed=0, chooses=True)
