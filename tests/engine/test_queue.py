"""The thread that owns the model: what it batches, what a failure costs, how it ends. No torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from app.core.errors import NotReady, SetupError
from app.core.records import Completion, GenerationRequest
from app.engine.queue import ModelThread, Ticket

SECONDS = 10.0  # never waited for when all is well


class Echo:
    """A batch runner that answers with the prompt, can be held, and fails on the prompt "bad"."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.is_running, self.may_go = threading.Event(), threading.Event()
        self.may_go.set()

    def __call__(self, tickets: Sequence[Ticket]) -> None:
        self.batches.append([ticket.request.prompt for ticket in tickets])
        self.is_running.set()
        assert self.may_go.wait(SECONDS)
        for ticket in tickets:
            if ticket.request.prompt == "bad":
                raise ValueError("bad batch")
            if ticket.request.prompt != "forgotten":
                ticket.end(answer(ticket.request.prompt))


def answer(text: str) -> Completion:
    return Completion(text, "stop", 1, 1, None)


def requests(*prompts: str) -> list[GenerationRequest]:
    return [GenerationRequest(prompt) for prompt in prompts]


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def start(echo: Echo, request: pytest.FixtureRequest) -> Callable[..., ModelThread]:
    def start(**options: object) -> ModelThread:
        thread = ModelThread(echo, **{"max_batch": 4, **options})  # type: ignore[arg-type]
        request.addfinalizer(thread.close)
        request.addfinalizer(echo.may_go.set)  # the last one added comes first
        return thread

    return start


def hold(thread: ModelThread, echo: Echo) -> Ticket:
    """Keep the thread busy with one request until ``echo.may_go``."""
    echo.may_go.clear()
    echo.is_running.clear()
    (ticket,) = thread.submit(requests("held"))
    assert echo.is_running.wait(SECONDS)
    return ticket


def test_requests_are_answered(start: Callable[..., ModelThread]) -> None:
    tickets = start().submit(requests("a", "b"))
    assert [ticket.future.result(SECONDS).text for ticket in tickets] == ["a", "b"]


def test_a_batch_that_raises_fails_its_own_requests_only(start: Callable[..., ModelThread], echo: Echo) -> None:
    thread = start(max_batch=2)
    held = hold(thread, echo)
    tickets = thread.submit(requests("a", "bad", "c", "d"))
    echo.may_go.set()
    assert held.future.result(SECONDS).text == "held"
    assert tickets[0].future.result(SECONDS).text == "a"
    with pytest.raises(ValueError, match="bad batch"):
        tickets[1].future.result(SECONDS)
    assert [ticket.future.result(SECONDS).text for ticket in tickets[2:]] == ["c", "d"]
    assert thread.submit(requests("after"))[0].future.result(SECONDS).text == "after"


def test_a_request_that_a_batch_forgets_is_not_left_waiting(start: Callable[..., ModelThread]) -> None:
    forgotten, other = start().submit(requests("forgotten", "other"))
    assert other.future.result(SECONDS).text == "other"
    with pytest.raises(RuntimeError, match="without an answer"):
        forgotten.future.result(SECONDS)


def test_batches_hold_like_requests_and_the_oldest_is_never_passed_over(
    start: Callable[..., ModelThread], echo: Echo
) -> None:
    thread = start(max_batch=3, order=lambda ticket: len(ticket.request.prompt))
    hold(thread, echo)
    tickets = thread.submit(requests("medium", "a", "very long", "b", "long one", "c", "d"))
    echo.may_go.set()
    for ticket in tickets:
        ticket.future.result(SECONDS)
    assert echo.batches[1:] == [["d", "medium", "long one"], ["a", "b", "c"], ["very long"]]


def test_a_waiting_request_that_is_cancelled_is_never_computed(start: Callable[..., ModelThread], echo: Echo) -> None:
    thread = start()
    hold(thread, echo)
    cancelled, kept = thread.submit(requests("cancelled", "kept"))
    assert cancelled.future.cancel()
    echo.may_go.set()
    assert kept.future.result(SECONDS).text == "kept"
    assert echo.batches == [["held"], ["kept"]]


def test_a_running_request_can_be_cancelled(start: Callable[..., ModelThread], echo: Echo) -> None:
    thread = start()
    held = hold(thread, echo)
    assert held.future.cancel()
    echo.may_go.set()
    assert thread.submit(requests("after"))[0].future.result(SECONDS).text == "after"


def test_closing_fails_what_waits_and_finishes_what_runs(start: Callable[..., ModelThread], echo: Echo) -> None:
    thread = start(max_batch=1)
    held = hold(thread, echo)
    waiting = thread.submit(requests("a", "b"))
    closing = threading.Thread(target=thread.close)
    closing.start()
    for ticket in waiting:
        with pytest.raises(NotReady):
            ticket.future.result(SECONDS)
    assert not held.future.done()
    echo.may_go.set()
    assert held.future.result(SECONDS).text == "held"
    closing.join(SECONDS)
    assert not closing.is_alive()
    (late,) = thread.submit(requests("late"))
    with pytest.raises(NotReady):
        late.future.result(SECONDS)
    assert echo.batches == [["held"]]
    thread.close()  # twice is once


def test_a_load_that_fails_tells_everyone_why(start: Callable[..., ModelThread]) -> None:
    may_load = threading.Event()

    def load() -> None:
        assert may_load.wait(SECONDS)
        raise SetupError("no base here")

    thread = start(prepare=load)
    (early,) = thread.submit(requests("early"))
    with pytest.raises(NotReady, match="still loading"):
        thread.wait_ready(0)
    may_load.set()
    with pytest.raises(SetupError, match="no base here"):
        early.future.result(SECONDS)
    with pytest.raises(SetupError, match="no base here"):
        thread.wait_ready(SECONDS)
    (late,) = thread.submit(requests("late"))
    with pytest.raises(SetupError, match="no base here"):
        late.future.result(SECONDS)


def test_requests_wait_for_the_load(start: Callable[..., ModelThread], echo: Echo) -> None:
    may_load = threading.Event()
    thread = start(prepare=lambda: may_load.wait(SECONDS))
    (early,) = thread.submit(requests("early"))
    assert thread.num_waiting == 1
    assert not echo.batches
    may_load.set()
    assert early.future.result(SECONDS).text == "early"


def test_closing_while_loading_ends_the_thread(start: Callable[..., ModelThread], echo: Echo) -> None:
    may_load = threading.Event()
    thread = start(prepare=lambda: may_load.wait(SECONDS))
    (early,) = thread.submit(requests("early"))
    closing = threading.Thread(target=thread.close)
    closing.start()
    with pytest.raises(NotReady):
        early.future.result(SECONDS)
    may_load.set()
    closing.join(SECONDS)
    assert not closing.is_alive()
    assert not echo.batches
