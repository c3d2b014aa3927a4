"""Gets a process ready while it starts: the base loads and answers once, the champions are attached again.

Runs on a thread of its own and holds up nobody: what was found is told by ``report`` and ``check``. An expert that
cannot be attached is told and left; it is tried again whenever it is asked.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, replace

from app.core.errors import AdapterRefused, DatabaseAway, NotReady, SelfspecError
from app.core.ports import Engine
from app.core.records import BaseInfo, Completion, GenerationRequest
from app.models import Adapter
from app.services.adapters import KIND
from app.services.readiness import Check
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database

log = logging.getLogger(__name__)

ATTACH_SECONDS = 60.0  # after this the process counts as ready, even if experts are still being attached
_LOOK_SECONDS = 0.25
_STOP_SECONDS = 5.0
_QUESTION = GenerationRequest("### Instruction:\nSay hello.\n\n### Response:\n", max_new_tokens=4)


@dataclass(frozen=True, slots=True)
class NotAttached:
    """An expert that is not attached, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class WarmUpReport:
    """How far the start is. Seconds are None until they are known."""

    load_seconds: float | None = None  # from the start of the process's engine until its base was loaded
    first_token_seconds: float | None = None  # of one short question to the base
    seconds: float | None = None  # from the start until all was done
    attached: tuple[str, ...] = ()  # champions, as finance@v1
    not_attached: tuple[NotAttached, ...] = ()
    failure: str | None = None  # why the start did not get to its end


class WarmUp:
    """One start of one process."""

    def __init__(
        self,
        engine: Engine,
        database: Database,
        artifacts: ArtifactStore,
        *,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._database, self._artifacts, self._seconds = engine, database, artifacts, seconds
        self._report = WarmUpReport()
        self._began = seconds()
        self._attach_until: float | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="warm-up", daemon=True)

    def start(self) -> None:
        """Begin, in the background."""
        self._began = self._seconds()
        self._thread.start()

    def stop(self) -> None:
        """End it before its time; an attachment under way is waited for a while."""
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)

    def wait(self) -> WarmUpReport:
        """Block until it has ended."""
        self._thread.join()
        return self._report

    @property
    def report(self) -> WarmUpReport:
        return self._report

    def check(self) -> Check:
        """Ok when the process is as quick as it gets, or when attaching experts takes too long to wait for."""
        report = self._report
        if report.failure is not None:
            return Check(False, report.failure)
        if report.first_token_seconds is None:
            return Check(False, "the base is loading" if report.load_seconds is None else "the base is warming up")
        late = self._attach_until is not None and self._seconds() > self._attach_until
        return Check(report.seconds is not None or late, _describe(report))

    def _run(self) -> None:
        try:
            base = self._wait_loaded()
            self._ask()
            self._attach_champions(base)
            self._note(seconds=self._seconds() - self._began)
            log.info("warm after %.1f s: %s", self._report.seconds or 0.0, _describe(self._report))
        except _Stopped:
            pass
        except Exception as error:
            reason = error.message if isinstance(error, SelfspecError) else f"{type(error).__name__}: {error}"
            self._note(failure=f"the warm-up failed: {reason}")
            log.exception("the warm-up failed")

    def _wait_loaded(self) -> BaseInfo:
        while True:
            try:
                base = self._engine.wait_ready(_LOOK_SECONDS)
            except NotReady:
                self._pause()
            else:
                self._note(load_seconds=self._seconds() - self._began)
                return base

    def _ask(self) -> None:
        future = self._engine.submit(_QUESTION)
        completion: Completion | None = None
        while completion is None:
            try:
                completion = future.result(_LOOK_SECONDS)
            except NotYet:
                if self._stopping.is_set():
                    future.cancel()
                    raise _Stopped from None
        self._note(first_token_seconds=completion.first_token_seconds)

    def _attach_champions(self, base: BaseInfo) -> None:
        """The newest first, as many as there are slots."""
        self._attach_until = self._seconds() + ATTACH_SECONDS
        champions = self._champions()
        champions.sort(key=lambda adapter: adapter.created_at, reverse=True)
        for adapter in champions[: self._engine.state().num_slots]:
            if self._stopping.is_set():
                raise _Stopped
            self._attach(adapter, base)

    def _champions(self) -> list[Adapter]:
        """Waits for a database that is away."""
        is_told = False
        while True:
            try:
                with self._database.session(read_only=True) as uow:
                    return [domain.champion for domain in uow.domains.list() if domain.champion is not None]
            except DatabaseAway as error:
                if not is_told:
                    log.warning("experts cannot be attached yet: %s", error)
                is_told = True
                self._pause()

    def _attach(self, adapter: Adapter, base: BaseInfo) -> None:
        try:
            if adapter.base_fingerprint != base.fingerprint:
                raise AdapterRefused(f"made on {adapter.base} ({adapter.base_fingerprint}), not on {base.fingerprint}")
            self._engine.attach(adapter.id, self._artifacts.open(adapter.artifact_digest, kind=KIND).folder)
        except Exception as error:
            log.warning("%s could not be attached", adapter.name, exc_info=not isinstance(error, SelfspecError))
            reason = error.message if isinstance(error, SelfspecError) else f"{type(error).__name__}: {error}"
            self._note(not_attached=(*self._report.not_attached, NotAttached(adapter.name, reason)))
        else:
            self._note(attached=(*self._report.attached, adapter.name))

    def _pause(self) -> None:
        if self._stopping.wait(_LOOK_SECONDS):
            raise _Stopped

    def _note(self, **changes: object) -> None:
        self._report = replace(self._report, **changes)  # type: ignore[arg-type]  # only this thread writes


class _Stopped(Exception):
    """The process ends before it was warm."""


def _describe(report: WarmUpReport) -> str:
    told = [
        f"base loaded in {report.load_seconds or 0.0:.1f} s",
        f"first token after {report.first_token_seconds or 0.0:.2f} s",
        f"experts attached: {len(report.attached)}",
    ]
    if report.not_attached:
        told.append("not attached: " + ", ".join(f"{expert.name} ({expert.reason})" for expert in report.not_attached))
    return "; ".join(told)
