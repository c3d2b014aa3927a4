"""The service's processes and somebody who starts each again as soon as it is gone, like a process manager."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psutil

from app.processes import Program, last_lines, start
from app.serve import api_command, child_environment, worker_command
from app.settings import Settings

GRACE_SECONDS = 15.0
MAX_FAULTS = 5
API = "api"
WORKERS = ("worker-1", "worker-2")


@dataclass(slots=True)
class Running:
    """One of the processes that are to run. ``is_doomed``: its end is wanted."""

    program: Program
    process: subprocess.Popen[bytes]
    is_doomed: bool = False
    is_frozen: bool = False


class Keeper:
    """A context: the API and two workers run inside it, none of them and none of theirs after it."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        """``environment``: what the processes get of SELFSPEC_…; nothing else of that name reaches them."""
        commands = {API: api_command(settings), **dict.fromkeys(WORKERS, worker_command(settings))}
        self._commands, self._settings = commands, settings
        self._environment = {**_clean(child_environment(settings)), **environment}
        self._running: dict[str, Running] = {}
        self.restarts, self.faults = Counter[str](), list[str]()

    def __enter__(self) -> Keeper:
        for name in self._commands:
            self._start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.family():
            _send(process, signal.SIGKILL)
        for running in self._running.values():
            running.process.wait()

    @property
    def has_hope(self) -> bool:
        """Not if the processes end by themselves again and again."""
        return len(self.faults) < MAX_FAULTS

    def tend(self) -> None:
        """Start again what has ended; an end that nobody wanted is a fault."""
        for name, running in list(self._running.items()):
            if (code := running.process.poll()) is None:
                continue
            if not running.is_doomed:
                told = " / ".join(last_lines(running.program.log, num_lines=3))
                self.faults.append(f"{name} ended by itself with {code}: {told}")
            self.restarts[name] += 1
            self._start(name)

    def kill(self, name: str) -> None:
        """kill -9."""
        running = self._running[name]
        running.is_doomed, running.is_frozen = True, False
        running.process.kill()

    def freeze(self, name: str, child: psutil.Process) -> None:
        """Stop a worker and the process of its job, as a machine that is suspended would."""
        self._running[name].is_frozen = True
        _send(child, signal.SIGSTOP)
        _send(psutil.Process(self._running[name].process.pid), signal.SIGSTOP)

    def thaw(self, name: str, child: psutil.Process) -> None:
        self._running[name].is_frozen = False
        with contextlib.suppress(psutil.NoSuchProcess):
            _send(psutil.Process(self._running[name].process.pid), signal.SIGCONT)
        _send(child, signal.SIGCONT)

    def is_frozen(self, name: str) -> bool:
        return self._running[name].is_frozen

    def child_of(self, job_id: str) -> tuple[str, psutil.Process] | None:
        """The process that works on a job and the name of the worker it belongs to."""
        for name in WORKERS:
            for child in _children(self._running[name].process.pid):
                with contextlib.suppress(psutil.Error):
                    if job_id in child.cmdline():
                        return name, child
        return None

    def children(self) -> list[psutil.Process]:
        """Of all workers."""
        return [child for name in WORKERS for child in _children(self._running[name].process.pid)]

    def stop(self) -> None:
        """Ask all to end, and wait: what is left afterwards is an orphan."""
        for running in self._running.values():
            running.is_doomed = True
            running.process.terminate()
        for name, running in self._running.items():
            try:
                running.process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self.faults.append(f"{name} did not end within {GRACE_SECONDS:.0f} s of SIGTERM")

    def family(self) -> list[psutil.Process]:
        """Every process on this machine that works on this data folder, whoever started it."""
        folder = str(self._settings.data_dir.absolute())
        return [process for process in _others() if _variable(process, "SELFSPEC_DATA_DIR") == folder]

    def _start(self, name: str) -> None:
        """With a log of its own: the one before tells how its life ended."""
        log = self._settings.logs_dir / f"{name}.{self.restarts[name]}.log"
        program = Program(name, self._commands[name], log)
        self._running[name] = Running(program, start(program, environment=self._environment))


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    """Without settings of the person's own; with bytecode kept, for hundreds of processes start."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("SELFSPEC_") and name != "PYTHONDONTWRITEBYTECODE"
    }


def _others() -> Iterator[psutil.Process]:
    return (process for process in psutil.process_iter() if process.pid != os.getpid())


def _variable(process: psutil.Process, name: str) -> str | None:
    try:
        return process.environ().get(name)
    except psutil.Error:
        return None


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
