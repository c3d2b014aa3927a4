"""A server as a child process: started, waited for, its processor time counted, ended with all it started."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import httpx
import psutil

from app.processes import Program, last_lines, start

READY_SECONDS = 300.0
GRACE_SECONDS = 15.0


class ServerFailed(Exception):
    """A server did not start; the message holds the end of its log."""


@contextmanager
def running(program: Program, *, environment: Mapping[str, str]) -> Iterator[psutil.Process]:
    """The program as long as the context lasts; its own environment on top of this process's."""
    child = start(program, environment={**os.environ, **environment})
    process = psutil.Process(child.pid)
    try:
        yield process
    finally:
        members = tree(process)
        child.terminate()
        psutil.wait_procs(members, timeout=GRACE_SECONDS)
        for member in dict.fromkeys([*members, *tree(process)]):
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        child.wait()


def wait_ready(program: Program, process: psutil.Process, url: str) -> None:
    """Until GET ``url`` answers 200. Raises ServerFailed."""
    deadline = time.monotonic() + READY_SECONDS
    with httpx.Client(trust_env=False, timeout=5) as client:
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                if client.get(url).status_code == 200:
                    return
            time.sleep(0.3)
    raise ServerFailed(
        f"{program.name} did not get ready; the end of {program.log}:\n" + "\n".join(last_lines(program.log))
    )


def tree(process: psutil.Process) -> list[psutil.Process]:
    """It and all below it; empty if it has ended."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@contextmanager
def suspended(processes: Iterable[psutil.Process]) -> Iterator[None]:
    """Stop them all, and what they started, until the block ends: some servers keep a core busy while nobody asks."""
    members = [member for process in dict.fromkeys(processes) for member in tree(process)]
    try:
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.suspend()
        yield
    finally:
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.resume()


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time of it, of what it started, and of what those have already seen end."""
    total = 0.0
    for member in tree(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            total += times.user + times.system
            total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total


def machine_seconds() -> float:
    """Processor time of everything on this machine."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0))


def free_port() -> int:
    """A port nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
