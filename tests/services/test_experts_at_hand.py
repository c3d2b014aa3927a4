"""Who can be asked without waiting for a disk or a database, and that it is never someone who serves no longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.engine.fake import FakeEngine
from app.services.experts import Target
from app.services.generate import Asked, Drawing, Generator, Question
from app.storage.database import Database
from tests.services.house import BASE, House
from tests.services.test_promotion import add_experts

QUESTION = Question("What is a bond?")
BONDS = Target(domain="bonds")


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path)
    add_experts(made, "bonds", 2)
    return made


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(base_name=BASE)


@pytest.fixture
def generator(house: House, engine: FakeEngine) -> Generator:
    return Generator(house.database, house.artifacts, engine)


def at_once(generator: Generator, target: Target, question: Question = QUESTION) -> str | None:
    """Name of who answers without waiting, ``base``, or None if nobody does."""
    return name_of(generator.begin_at_once(question, Drawing(), target=target))


def begun(generator: Generator, target: Target) -> str | None:
    return name_of(generator.begin(QUESTION, Drawing(), target=target))


def name_of(asked: Asked | None) -> str | None:
    if asked is None:
        return None
    [answer] = asked.futures
    assert answer.result(10).adapter == asked.expert.adapter
    return asked.expert.name or "base"


def test_who_was_asked_before_is_at_hand(generator: Generator) -> None:
    for target, name in [
        (BONDS, "bonds@v2"),
        (Target(model="bonds"), "bonds@v2"),
        (Target(adapter="bonds@v1"), "bonds@v1"),
        (Target(model=BASE), "base"),
    ]:
        assert at_once(generator, target) is None
        assert begun(generator, target) == name
        assert at_once(generator, target) == name
    assert at_once(generator, Target()) == "base"


def test_a_promotion_elsewhere_is_seen_by_the_next_question(house: House, generator: Generator) -> None:
    """By another process: here its own connections. Each time, the one that served before is not asked again."""
    assert begun(generator, BONDS) == "bonds@v2"
    with Database(house.database.url) as other:
        [second, first] = house.services.domains.get("bonds").versions
        for adapter in (first, second, first):
            with other.session() as uow:
                uow.domains.set_champion("bonds", adapter.id, now=house.now, reason="by hand")
                uow.commit()
            assert at_once(generator, BONDS) is None
            assert begun(generator, BONDS) == adapter.name
            assert at_once(generator, BONDS) == adapter.name


def test_one_that_lost_its_place_is_attached_first(generator: Generator, engine: FakeEngine) -> None:
    assert begun(generator, BONDS) == "bonds@v2"
    [proof] = engine.attachments()
    engine.detach(proof.adapter)
    assert at_once(generator, BONDS) is None
    assert begun(generator, BONDS) == "bonds@v2"


def test_long_texts_and_demonstrations_take_time(generator: Generator) -> None:
    assert begun(generator, BONDS) == "bonds@v2"
    assert at_once(generator, BONDS, Question("What is a bond?", "word " * 1000)) is None
    assert at_once(generator, BONDS, Question("What is a bond?", shots=1)) is None


def test_a_database_that_does_not_tell_is_read_each_time(house: House, generator: Generator) -> None:
    house.database.dispose()  # idle connections only: it can still be read
    assert begun(generator, BONDS) == "bonds@v2"
    assert at_once(generator, BONDS) is None
