"""Waves of questions: in order, one asked ahead, none left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from app.core.records import Completion, GenerationRequest
from app.engine.fake import FakeEngine
from app.pipeline.ahead import answered

SIZE = 6


class Gated(FakeEngine):
    """Answers one question at a time, each when it is let through."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.asked, self.given_up = threading.Semaphore(0), list[str](), threading.Event()
        self.num_asked = threading.Semaphore(0)

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        on_completion: Callable[[int, Completion], None] | None = None,
    ) -> list[Completion]:
        self.asked.append(requests[0].prompt)
        self.num_asked.release()
        answers = []
        try:
            for position, request in enumerate(requests):
                assert self.gate.acquire(timeout=30)
                answers += super().generate([request])
                if on_completion is not None:
                    on_completion(position, answers[-1])
        except Exception:
            self.given_up.set()
            raise
        return answers


def waves(number: int) -> Iterator[tuple[int, list[GenerationRequest]]]:
    for wave in range(number):
        yield wave, [GenerationRequest(f"wave {wave} question {place}", max_new_tokens=4) for place in range(SIZE)]


def test_answers_come_in_order_beside_what_names_them() -> None:
    engine, told = FakeEngine(), list[int]()
    found = list(answered(waves(5), engine, on_answer=lambda: told.append(threading.get_ident())))
    wanted = [(name, [each.text for each in engine.generate(requests)]) for name, requests in waves(5)]
    assert [(name, [each.text for each in answers]) for name, answers in found] == wanted
    assert told == [threading.get_ident()] * 5 * SIZE, "in the caller's thread"
    assert list(answered(iter(()), engine)) == []


def test_the_next_wave_is_asked_before_the_last_is_answered() -> None:
    engine = Gated()
    found = answered(waves(2), engine)
    first = threading.Thread(target=lambda: next(found), daemon=True)
    first.start()
    engine.gate.release(SIZE // 2)
    assert engine.num_asked.acquire(timeout=30)
    assert not engine.num_asked.acquire(blocking=False), "half is not answered yet"
    engine.gate.release()
    assert engine.num_asked.acquire(timeout=30)
    assert first.is_alive()
    engine.gate.release(2 * SIZE)
    first.join(30)
    assert [name for name, _ in found] == [1]
    assert [prompt[:6] for prompt in engine.asked] == ["wave 0", "wave 1"]


def test_nothing_is_asked_ahead_where_one_may_be_enough() -> None:
    engine = Gated()
    engine.gate.release(2 * SIZE)
    found = answered(waves(2), engine, asks_ahead=lambda: False)
    assert next(found)[0] == 0
    assert len(engine.asked) == 1
    assert next(found)[0] == 1


def test_a_caller_who_stops_leaves_nothing_running() -> None:
    engine = Gated()
    engine.gate.release(SIZE)
    found = answered(waves(3), engine)
    assert next(found)[0] == 0
    engine.gate.release()
    found.close()
    assert engine.given_up.wait(30)
    assert len(engine.asked) == 2


def test_what_a_wave_raises_reaches_the_caller_after_those_before_it() -> None:
    class Failing(FakeEngine):
        def generate(
            self,
            requests: Sequence[GenerationRequest],
            *,
            on_completion: Callable[[int, Completion], None] | None = None,
        ) -> list[Completion]:
            if requests[0].prompt.startswith("wave 1"):
                raise OSError("gone")
            return super().generate(requests, on_completion=on_completion)

    found = answered(waves(3), Failing())
    assert next(found)[0] == 0
    with pytest.raises(OSError, match="gone"):
        next(found)
