"""Callers of the API: each posts one job, does what its order says, and asks again until the API answers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import httpx

from app.core.states import JobStatus, WaitsFor
from tests.chaos.look import Seen
from tests.chaos.plan import Caller, Order

BACK_OFF_SECONDS = 0.3
TOO_LATE = 409  # the job had ended, or was not held: no fault of a request without a key


class Desk:
    """Where callers ask. An answer that is no honest one is a fault."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._asks_again_at = 0.0  # monotonic seconds
        self.answers, self.faults = Counter[str](), list[str]()

    def post(self, path: str, *, key: str | None = None, body: object = None) -> httpx.Response | None:
        """The answer; None if there was none, or the service said that it is not ready: ask again."""
        headers = {"Idempotency-Key": key} if key else {}
        if time.monotonic() < self._asks_again_at:
            return None
        try:
            answer = self._http.post(path, json=body, headers=headers)
        except httpx.HTTPError:
            self._come_back("none")
            return None
        if answer.status_code == 503:
            self._come_back("503")
            return None
        self.answers[str(answer.status_code)] += 1
        if not answer.is_success and (key or answer.status_code != TOO_LATE):
            self.faults.append(f"POST {path} answered {answer.status_code}: {answer.text[:300]}")
        return answer

    def _come_back(self, why: str) -> None:
        """All callers wait a moment."""
        self.answers[why] += 1
        self._asks_again_at = time.monotonic() + BACK_OFF_SECONDS


@dataclass(slots=True)
class Visit:
    """One caller and the job. ``steps`` is what is left to do; it goes on when a step yields False (not yet)."""

    order: Order
    desk: Desk
    job_id: str | None = None
    seen: Seen | None = None
    is_over: bool = False
    asked: set[str] = field(default_factory=set)
    _steps: Iterator[None] = field(init=False)

    def __post_init__(self) -> None:
        self._steps = self._walk()

    def go_on(self, jobs: Mapping[str, Seen]) -> None:
        """As far as it goes now."""
        self.seen = jobs.get(self.job_id or "")
        try:
            next(self._steps)
        except StopIteration:
            self.is_over = True

    def _walk(self) -> Iterator[None]:
        yield from self._post()
        while not self._has_come():
            if self._wants_review():
                yield from self._ask("resume")
            yield
        if self.order.caller is Caller.REPEATS:
            yield from self._post()
        elif self.order.caller in {Caller.CANCELS, Caller.RETRIES}:
            yield from self._ask("cancel")
        elif self.order.caller is Caller.PAUSES:
            yield from self._ask("pause")
        while not self._is_at_rest():
            if self._wants_review() or self._is_paused():
                yield from self._ask("resume")
            elif self._is_cancelled() and self.order.caller is Caller.RETRIES and "retry" not in self.asked:
                yield from self._ask("retry")
            yield

    def _post(self) -> Iterator[None]:
        """With the key, until there is an answer; it must always name the same job."""
        while (answer := self.desk.post("/specialize", key=self.order.key, body=self.order.body())) is None:
            yield
        if not answer.is_success:
            return
        job_id = answer.json()["id"]
        if self.job_id not in (None, job_id):
            self.desk.faults.append(f"the key {self.order.key} made {self.job_id} and {job_id}")
        self.job_id = self.job_id or job_id

    def _ask(self, move: str) -> Iterator[None]:
        """Until there is an answer, and until the job has been looked at again since."""
        while self.desk.post(f"/jobs/{self.job_id}/{move}") is None:
            yield
        self.asked.add(move)
        yield

    def _has_come(self) -> bool:
        """Its moment."""
        return self.seen is not None and (self.seen.is_final or self.seen.num_done >= self.order.moment)

    def _wants_review(self) -> bool:
        return self.seen is not None and self.seen.waits_for is WaitsFor.REVIEW

    def _is_paused(self) -> bool:
        return self.seen is not None and self.seen.waits_for is WaitsFor.RESUME

    def _is_cancelled(self) -> bool:
        return self.seen is not None and self.seen.status is JobStatus.CANCELLED

    def _is_at_rest(self) -> bool:
        """Ended, and nobody wants to do anything about it."""
        if self.seen is None or not self.seen.is_final:
            return False
        wants_retry = self.order.caller is Caller.RETRIES and "retry" not in self.asked
        return not (self._is_cancelled() and wants_retry)
