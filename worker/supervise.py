"""Runs one job in a child process: keeps its lease, kills it on cancel, and says on the job how its process ended.

Knows nothing about what a job does. A database that is away stops nothing: the process goes on or ends itself, and what
is to be said of it is said when the database is back.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from app.core.errors import DatabaseAway, DiskFull
from app.core.states import WaitsFor
from app.services.lease import Lease, LeaseService
from worker.exits import Exit
from worker.outage import Outage

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5  # how soon a cancel is noticed
_LAST_WORDS_BYTES = 4000

Ending = Callable[[], None]  # says on the job's row how its process ended


class Supervisor:
    """Sees one job at a time to its end, or to where another worker may go on with it."""

    def __init__(
        self,
        leases: LeaseService,
        *,
        logs_dir: Path,
        heartbeat_seconds: float,
        stopping: threading.Event,
        disk_trouble: Callable[[], str | None],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``stopping`` is set when this worker is told to end; ``environment``: variables of the child alone."""
        self._leases, self._logs_dir, self._heartbeat_seconds = leases, logs_dir, heartbeat_seconds
        self._stopping, self._disk_trouble = stopping, disk_trouble
        self._environment = environment or {}
        self._child: subprocess.Popen[bytes] | None = None
        self.was_interrupted = False  # the last job: it neither ended nor died

    def run(self, lease: Lease) -> None:
        """Blocks until the child is gone and the job's row says so."""
        self.was_interrupted = False
        try:
            ending = self._work(lease)
        except OSError as error:
            ending = self._interrupted(lease, f"no process could be started: {error}")
        self._insist(ending)

    def memory_bytes(self) -> int:
        """What the child has taken by now; 0 without one."""
        if (child := self._child) is not None:
            with suppress(psutil.Error):
                return int(psutil.Process(child.pid).memory_info().rss)
        return 0

    def _work(self, lease: Lease) -> Ending:
        """Raises OSError where no process can be started."""
        if self._is_cancelled(lease, Outage()):
            return partial(self._leases.end_cancelled, lease)
        log.info("job %s: attempt %d", lease.job_id, lease.attempt)
        output = self._logs_dir / f"{lease.job_id}.log"
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("ab") as stream, _spawn(lease, stream.fileno(), self._environment) as child:
            begin, self._child = stream.tell(), child
            try:
                ending = self._watch(lease, child)
            finally:
                self._child = None
                _kill(child)
            assert child.stdout is not None
            reason = child.stdout.read().decode(errors="replace")
        return ending or self._ended(lease, child.returncode, reason, _last_words(output, begin))

    def _watch(self, lease: Lease, child: subprocess.Popen[bytes]) -> Ending | None:
        """None: the child ended by itself; else it is to be killed."""
        renewed, looking, renewing = time.monotonic(), Outage(), Outage()
        while not _has_ended(child):
            if self._stopping.is_set():
                return partial(self._leases.give_back, lease)
            if self._is_cancelled(lease, looking):
                return partial(self._leases.end_cancelled, lease)
            if time.monotonic() - renewed >= self._heartbeat_seconds:
                if not self._renew(lease, renewing):
                    log.info("job %s has ended or was taken over", lease.job_id)
                    return _nothing
                renewed = time.monotonic()
        return None

    def _is_cancelled(self, lease: Lease, outage: Outage) -> bool:
        try:
            is_cancelled = self._leases.is_cancel_requested(lease)
        except (DatabaseAway, DiskFull) as error:
            outage.note(error)
            return False
        outage.end()
        return is_cancelled

    def _renew(self, lease: Lease, outage: Outage) -> bool:
        """False: the lease is lost. A database that is away takes it from nobody: no other worker reaches it either."""
        try:
            is_held = self._leases.renew(lease)
        except (DatabaseAway, DiskFull) as error:
            outage.note(error)
            return True
        outage.end()
        return is_held

    def _ended(self, lease: Lease, code: int, reason: str, last_words: str) -> Ending:
        match code:
            case Exit.DONE | Exit.LEASE_LOST:
                return _nothing
            case Exit.AWAY | Exit.NO_DISK:
                return self._interrupted(lease, reason, WaitsFor.DISK if code == Exit.NO_DISK else None)
        if (trouble := self._disk_trouble()) is not None:
            return self._interrupted(lease, f"{trouble}; {last_words}", WaitsFor.DISK)
        return partial(self._leases.note_death, lease, exit_code=code, last_words=last_words)

    def _interrupted(self, lease: Lease, reason: str, waits_for: WaitsFor | None = None) -> Ending:
        self.was_interrupted = True
        log.warning("job %s was interrupted: %s", lease.job_id, reason)
        told = f"interrupted: {reason}; the job is queued again and goes on from what it has made"
        return partial(self._leases.give_back, lease, told=told, waits_for=waits_for)

    def _insist(self, ending: Ending) -> None:
        """Until the database takes it; while the worker stops it has one try, and then the lease runs out."""
        outage = Outage()
        while True:
            try:
                ending()
                return outage.end()
            except (DatabaseAway, DiskFull) as error:
                outage.note(error)
            if self._stopping.wait(outage.wait_seconds):
                return None


def _nothing() -> None:
    """Somebody else said it."""


def _spawn(lease: Lease, output: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A fresh interpreter, so that CUDA works and memory comes back whole, in a process group of its own.

    It ends when its input does, which this process holds open: a worker that is killed leaves no child at work.
    """
    command = [sys.executable, "-m", "worker.child", lease.job_id, lease.owner, str(lease.attempt)]
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "20000"}
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=output,
        env={**quiet, **os.environ, **environment},
        start_new_session=True,
    )


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Waits for it for a moment."""
    try:
        child.wait(timeout=_LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill(child: subprocess.Popen[bytes]) -> None:
    """With all that it has started, which may have outlived it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _last_words(output: Path, begin: int) -> str:
    """The last line of the log from ``begin`` on, of a JSON line its message."""
    with output.open("rb") as log_file:
        end = log_file.seek(0, os.SEEK_END)
        log_file.seek(max(begin, end - _LAST_WORDS_BYTES))
        lines = log_file.read().decode(errors="replace").strip().splitlines()
    last = lines[-1] if lines else ""
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(last)["message"])
    return last
