"""Runs programs as child processes that start together, are watched, and end together.

Knows nothing of what they do. None is ever started again behind the person's back, and when this ends, no process it
started is left: none of theirs, and not after it was itself killed (on Linux).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import psutil

from app.core.errors import SelfspecError

GRACE_SECONDS = 5.0  # from the request to end until what is left is killed
POLL_SECONDS = 0.2
LOG_LINES = 15
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Program:
    """One process to run, and where its output goes."""

    name: str
    command: tuple[str, ...]
    log: Path


class Processes:
    """Some programs as one context: all run inside it, none after it."""

    def __init__(
        self, programs: Sequence[Program], *, environment: Mapping[str, str], grace_seconds: float = GRACE_SECONDS
    ) -> None:
        self._grace_seconds = grace_seconds
        self._programs = tuple(programs)
        self._environment = dict(environment)
        self._processes: dict[Program, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            for program in self._programs:
                self._processes[program] = start(program, environment=self._environment)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.stop()

    def check(self) -> None:
        """Raise SelfspecError with the last log lines if a process has ended."""
        for program, process in self._processes.items():
            code = process.poll()
            if code is not None:
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                lines = "\n".join(f"  {line}" for line in last_lines(program.log))
                raise SelfspecError(f"the {program.name} {how}; the end of {program.log}:\n{lines}")

    def wait(self) -> None:
        """Block until all have ended by themselves; raises SelfspecError with the last log line of one that failed."""
        for program, process in self._processes.items():
            if process.wait() != 0:
                last = "".join(last_lines(program.log, num_lines=1)).removeprefix("selfspec: ")
                raise SelfspecError(last or f"the {program.name} ended with exit code {process.returncode}")

    def watch(self) -> None:
        """Block while all live; raises SelfspecError when one ends."""
        while True:
            self.check()
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Ask all to end, wait a while, kill what is left, and what they started."""
        family = self._family()
        try:
            for process in self._processes.values():
                if process.poll() is None:
                    process.terminate()
            psutil.wait_procs(family, timeout=self._grace_seconds)
        finally:
            for member in dict.fromkeys([*family, *self._family()]):
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            for process in self._processes.values():
                process.wait()

    def _family(self) -> list[psutil.Process]:
        """Parents first: a worker that is killed before its child cannot take the child's death for a failure."""
        family: list[psutil.Process] = []
        for process in self._processes.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.poll() is None:
                    family.append(psutil.Process(process.pid))
        for parent in tuple(family):
            with contextlib.suppress(psutil.NoSuchProcess):
                family += parent.children(recursive=True)
        return family


def start(program: Program, *, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start in a session of its own, so that Ctrl-C reaches only this process, which then ends all in order."""
    program.log.parent.mkdir(parents=True, exist_ok=True)
    if program.log.exists():
        program.log.replace(program.log.with_suffix(".log.1"))
    with program.log.open("wb") as log:
        return subprocess.Popen(
            program.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            preexec_fn=_end_with_parent if _LIBC else None,
        )


def _end_with_parent() -> None:
    """In the child, before its program: be asked to end when the parent is gone, however it went."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def last_lines(path: Path, *, num_lines: int = LOG_LINES, num_bytes: int = 16_384) -> list[str]:
    """The end of a log; empty if there is none."""
    if not path.exists():
        return []
    with path.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - num_bytes))
        return log.read().decode("utf-8", errors="replace").splitlines()[-num_lines:]


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP (a closed terminal) end the block as Ctrl-C does: by KeyboardInterrupt."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
