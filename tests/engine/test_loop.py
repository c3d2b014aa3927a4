"""The thread that owns the model: when it steps, what a failure costs, how it ends. No torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from app.core.errors import NotReady, SetupError
from app.engine.loop import Loop

SECONDS = 10.0  # never waited for when all is well


class Work:
    """Numbers to be done, one a step; the number 13 cannot be done. ``told`` says what became of it all."""

    def __init__(self) -> None:
        self.todo: list[int] = []
        self.done: list[int] = []
        self.told: list[BaseException] = []
        self.changed = threading.Condition()

    def step(self) -> bool:
        number = self.todo.pop(0)
        if number == 13:
            raise ValueError("13")
        with self.changed:
            self.done.append(number)
            self.changed.notify_all()
        return True

    def rescue(self, error: BaseException) -> None:
        with self.changed:
            self.told.append(error)
            self.changed.notify_all()

    def wait(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, SECONDS)


@pytest.fixture
def work() -> Work:
    return Work()


def start(work: Work, prepare: Callable[[], None] = lambda: None) -> Loop:
    return Loop(prepare=prepare, step=work.step, has_work=lambda: bool(work.todo), rescue=work.rescue)


@pytest.fixture
def loop(work: Work) -> Iterator[Loop]:
    loop = start(work)
    yield loop
    loop.close()


def test_it_steps_while_there_is_work(loop: Loop, work: Work) -> None:
    loop.call_soon(lambda: work.todo.extend([1, 2, 3]))
    work.wait(lambda: work.done == [1, 2, 3])


def test_a_step_that_raises_is_told_and_the_next_is_taken(loop: Loop, work: Work) -> None:
    loop.call_soon(lambda: work.todo.extend([1, 13, 2]))
    work.wait(lambda: work.done == [1, 2])
    assert [str(error) for error in work.told] == ["13"]


def test_nothing_is_stepped_while_it_is_paused(loop: Loop, work: Work) -> None:
    with loop.paused():
        loop.call_soon(lambda: work.todo.extend([1]))
        assert work.done == []
    work.wait(lambda: work.done == [1])


def test_what_was_asked_before_the_end_is_done_and_what_is_left_is_told(work: Work) -> None:
    may_start = threading.Event()
    loop = start(work, prepare=lambda: assert_set(may_start))
    loop.call_soon(lambda: work.todo.append(1))
    closing = threading.Thread(target=loop.close)
    closing.start()
    may_start.set()
    closing.join(SECONDS)
    assert isinstance(work.told[-1], NotReady)
    with pytest.raises(NotReady, match="closed"):
        loop.call_soon(lambda: None)
    with pytest.raises(NotReady, match="closed"):
        loop.wait_ready(0)
    loop.close()


def assert_set(event: threading.Event) -> None:
    assert event.wait(SECONDS)


def test_a_model_that_cannot_be_loaded_is_told_to_everyone(work: Work) -> None:
    def fail() -> None:
        raise SetupError("no such base")

    loop = start(work, fail)
    with pytest.raises(SetupError, match="no such base"):
        loop.wait_ready()
    with pytest.raises(SetupError, match="no such base"):
        loop.call_soon(lambda: None)
    assert str(work.told[0]) == "no such base"


def test_early_is_not_ready(work: Work) -> None:
    may_start = threading.Event()
    loop = start(work, prepare=lambda: assert_set(may_start))
    with pytest.raises(NotReady, match="still loading"):
        loop.wait_ready(0)
    may_start.set()
    loop.wait_ready(SECONDS)
    loop.close()
