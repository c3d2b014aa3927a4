"""Runs one job in a child process: keeps its lease, kills it on cancel, ends the job if it dies.

Knows nothing about what a job does.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from app.bootstrap import Stores
from app.services.lease import Lease, LeaseService

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5  # how soon a cancel is noticed
_LAST_WORDS_BYTES = 400


class Supervisor:
    """The owner of one lease at a time."""

    def __init__(self, stores: Stores, *, owner: str, stopping: threading.Event) -> None:
        """``stopping`` is set when this worker is told to end."""
        settings = stores.settings
        self._settings, self._owner, self._stopping = settings, owner, stopping
        self._leases = LeaseService(
            stores.database, stores.artifacts, clock=stores.clock, lease_seconds=settings.lease_seconds
        )

    def run(self, job_id: str) -> None:
        """Take the lease and see the job to its end; returns at once if it is not to be had."""
        lease = self._leases.take(job_id, owner=self._owner)
        if lease is None:
            log.info("job %s is not free", job_id)
            return
        if self._leases.is_cancel_requested(lease):
            self._leases.end_cancelled(lease)
            return
        output = self._settings.logs_dir / f"{job_id}.log"
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("ab") as stream, _spawn(lease, stream.fileno()) as child:
            try:
                self._watch(lease, child)
            finally:
                _kill(child)
        if child.returncode != 0:
            self._leases.end_dead(lease, exit_code=child.returncode, last_words=_last_words(output))

    def _watch(self, lease: Lease, child: subprocess.Popen[bytes]) -> None:
        renewed = time.monotonic()
        while True:
            try:
                child.wait(timeout=_LOOK_SECONDS)
                return
            except subprocess.TimeoutExpired:
                pass
            if self._leases.is_cancel_requested(lease):
                _kill(child)
                self._leases.end_cancelled(lease)
                return
            if self._stopping.is_set():
                _kill(child)
                self._leases.give_back(lease)
                return
            if time.monotonic() - renewed >= self._settings.heartbeat_seconds:
                if not self._leases.renew(lease):
                    log.warning("job %s was taken over or ended elsewhere", lease.job_id)
                    return
                renewed = time.monotonic()


def _spawn(lease: Lease, output: int) -> subprocess.Popen[bytes]:
    """A fresh interpreter, so that CUDA works and memory comes back whole, in a process group of its own.

    It ends when its input does, which this process holds open: a worker that is killed leaves no child at work.
    """
    command = [sys.executable, "-m", "worker.child", lease.job_id, lease.owner, str(lease.attempt)]
    environment = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "20000", **os.environ}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment, start_new_session=True
    )


def _kill(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _last_words(output: Path) -> str:
    tail = output.read_bytes()[-_LAST_WORDS_BYTES:].decode(errors="replace").strip()
    return tail.splitlines()[-1] if tail else ""
