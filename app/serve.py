"""Runs the service on this machine: API and worker as two processes, from a free port to the last one ended.

Knows how the two are started and nothing of what they do.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from rich.console import Console

from app.core.cores import num_cores
from app.core.errors import SelfspecError, SetupError
from app.processes import GRACE_SECONDS, POLL_SECONDS, Processes, Program, ended_by_signals
from app.settings import Settings

END_SECONDS = 10.0  # of the API, after its drain: errors of requests given up, the engine, connections
READY_SECONDS = 600.0  # a large base on a slow disk takes minutes


def run_service(settings: Settings) -> Processes:
    """API and worker, not yet started: a context."""
    grace_seconds = settings.drain_s + GRACE_SECONDS + END_SECONDS
    return Processes(programs_of(settings), environment=child_environment(settings), grace_seconds=grace_seconds)


def wait_ready(processes: Processes, *, url: str, console: Console) -> None:
    """Block until GET /ready answers 200, showing what is missing. Raises SelfspecError."""
    deadline = time.monotonic() + READY_SECONDS
    with console.status("the API is starting") as status:
        _wait_ready(processes, url=url, deadline=deadline, tell=status.update if console.is_terminal else console.print)


def _wait_ready(processes: Processes, *, url: str, deadline: float, tell: Callable[[str], None]) -> None:
    told = None
    while (missing := what_is_missing(url)) is not None:
        if missing != told:
            tell(missing)
            told = missing
        processes.check()
        if time.monotonic() > deadline:
            raise SelfspecError(f"the service was not ready after {READY_SECONDS:.0f} seconds: {missing}")
        time.sleep(POLL_SECONDS)


def programs_of(settings: Settings) -> tuple[Program, Program]:
    """The two processes that make the service."""
    logs = settings.logs_dir
    return (
        Program("API", api_command(settings), logs / "api.log"),
        Program("worker", worker_command(settings), logs / "worker.log"),
    )


def api_command(settings: Settings) -> tuple[str, ...]:
    """How the API is started, here and in a container."""
    return (sys.executable, "-m", "app.server")


def worker_command(settings: Settings) -> tuple[str, ...]:
    """How the worker is started, here and in a container. Celery's one thread only wakes the slots that run jobs."""
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    pool = ("--pool=threads", "--concurrency=1", "--loglevel", settings.log_level)
    return (sys.executable, "-m", "celery", "-A", "worker.app", "worker", *pool, *quiet)


def child_environment(settings: Settings) -> dict[str, str]:
    """The person's environment, with threads bounded: those of two processes that spin for long starve both.

    Yet waking a thread costs as much as a small product of matrices, so that GNU's, which PyTorch brings, spin briefly.
    """
    threads = str(settings.threads or num_cores())
    bounded = {
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "20000",
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
    return {**bounded, **os.environ, "SELFSPEC_DATA_DIR": str(settings.data_dir.absolute())}


def prepare(settings: Settings, console: Console) -> None:
    """What must be there before the service starts: a free port, a folder to write to, tables, the base."""
    check_port(settings.host, settings.port)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    check_space(settings.data_dir, num_bytes=settings.min_free_bytes)
    from app import bootstrap  # the database and broker libraries, which nothing else here needs

    bootstrap.migrate(settings)
    if settings.engine == "real":
        pull_base(settings, console)


def pull_base(settings: Settings, console: Console) -> None:
    """Fetch the base in a process of its own: converting it takes libraries and memory this one has no use for."""
    command = (sys.executable, "-m", "app.cli", "models", "pull")
    program = Program("fetching of the base", command, settings.logs_dir / "pull.log")
    console.print(f"base {settings.base}: fetched if it is not here yet (log: {program.log})", soft_wrap=True)
    with console.status("fetching the base"), Processes([program], environment=child_environment(settings)) as pulling:
        pulling.wait()


def check_port(host: str, port: int) -> None:
    """Raise SetupError unless the API could listen there."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise SetupError(f"SELFSPEC_HOST={host!r} is no address of this machine: {error.strerror}") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            remedy = "stop what listens there, or choose another: SELFSPEC_PORT=8001"
            raise SetupError(f"port {port} on {host} is in use: {remedy}") from error
        raise SetupError(f"cannot listen on {host} port {port}: {error.strerror}") from error


def check_space(folder: Path, *, num_bytes: int) -> None:
    """Raise SetupError where the service would start and then fail at its first write."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        figures = f"{free / 1e6:.0f} MB free, {num_bytes / 1e6:.0f} MB needed"
        raise SetupError(f"the disk of {folder} is full: {figures}")


def local_url(settings: Settings) -> str:
    """Where this machine reaches the API; an address that means "all" is replaced by the loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def what_is_missing(url: str) -> str | None:
    """None if the service is ready; otherwise what it waits for, in words."""
    try:
        answer = httpx.get(f"{url}/ready", timeout=10, trust_env=False)
        if answer.status_code == 200:
            return None
        checks = answer.json()["checks"].items()
        return "; ".join(f"{name}: {check['detail']}" for name, check in checks if not check["ok"])
    except httpx.HTTPError:
        return "the API is starting"
    except (ValueError, KeyError, TypeError):
        return f"GET /ready answered {answer.status_code}"


def serve(settings: Settings, console: Console) -> None:
    """Run the service until Ctrl-C or SIGTERM; the last line is JSON. Raises SelfspecError if it cannot go on."""
    started = time.monotonic()
    ready_seconds: float | None = None
    with ended_by_signals():
        try:
            prepare(settings, console)
            with run_service(settings) as processes:
                console.print(f"starting; logs are in {settings.logs_dir}", soft_wrap=True)
                url = local_url(settings)
                wait_ready(processes, url=url, console=console)
                ready_seconds = round(time.monotonic() - started, 1)
                console.print(f"ready at {url} (try {url}/docs); Ctrl-C ends it", soft_wrap=True)
                processes.watch()
        except KeyboardInterrupt:
            console.print("stopped")
    figures = {"ready_seconds": ready_seconds, "seconds": round(time.monotonic() - started, 1)}
    print(json.dumps({"serve": figures}), flush=True)
