"""A service as users run it: a real API process and real workers, on the servers a test names; the fake engine."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import psutil
import pytest

from app.processes import Program, last_lines, start
from app.serve import api_command, child_environment, worker_command
from app.settings import Settings
from app.storage.database import Database
from tests.api.live import EVALUATION, SEEDS

PATIENCE_SECONDS = 180.0  # then what is waited for will not come, and the test fails
ENDLESS = {"num_examples": 1_000_000, "max_prompts": 1_000_000}
_LOOK_SECONDS = 0.05
_GRACE_SECONDS = 20.0
FINAL = ("succeeded", "failed", "cancelled")

T = TypeVar("T")


class Site:
    """A context: its API runs inside it, and as many workers as are started; none of their processes after it."""

    def __init__(self, folder: Path, *, database_url: str, broker_url: str, queue: str, **settings: object) -> None:
        """``settings`` are lower-case names without their prefix."""
        given = {"engine": "fake", "base": "fake-base", "queue": queue, "port": _free_port(), **settings}
        urls = {"database_url": database_url, "broker_url": broker_url}
        self.settings = Settings(data_dir=folder, **urls, **given)  # type: ignore[arg-type]
        self._environment = _environment(self.settings, {**urls, **given})
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.settings.port}", timeout=60, trust_env=False)

    def __enter__(self) -> Self:
        try:
            with Database(self.settings.resolved_database_url) as database:
                database.upgrade()
            self.start_api()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.end()

    def start_api(self) -> None:
        """Returns when it is ready."""
        self._start("api", api_command(self.settings))
        self.until(lambda: self.ready().status_code == 200, "the API is ready")

    def start_worker(self, name: str = "worker") -> subprocess.Popen[bytes]:
        return self._start(name, worker_command(self.settings))

    def worker_check(self) -> int:
        """The exit code of a container's health check of its worker."""
        command = (sys.executable, "-m", "app.cli", "worker", "--check")
        return subprocess.run(command, env=self._environment, capture_output=True).returncode

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        process = self._running.pop(name)
        process.send_signal(number)
        return process.wait(PATIENCE_SECONDS)

    def end(self) -> None:
        """Everything, whatever state it is in."""
        family = [child for process in self._running.values() for child in _family(process)]
        for process in self._running.values():
            process.terminate()
        _, left = psutil.wait_procs(family, timeout=_GRACE_SECONDS)
        for member in left:
            member.kill()
        for process in self._running.values():
            process.wait()
        self._running.clear()
        self.http.close()

    def _start(self, name: str, command: tuple[str, ...]) -> subprocess.Popen[bytes]:
        program = Program(name, command, self.settings.logs_dir / f"{name}.log")
        self._running[name] = start(program, environment=self._environment)
        return self._running[name]

    def ready(self) -> httpx.Response:
        try:
            return self.http.get("/ready")
        except httpx.TransportError:
            return httpx.Response(503)

    def order(self, domain: str = "finance", **recipe: object) -> str:
        """Post a specialization; returns the job's id."""
        wanted = {"preset": "quick", "num_examples": 5, "promotion": "always", **recipe}
        body = {"domain": domain, "seeds": SEEDS, "evaluation": EVALUATION, "recipe": wanted}
        answer = self.http.post("/specialize", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.http.get(f"/jobs/{job_id}").raise_for_status().json())

    def events(self, job_id: str) -> list[str]:
        """Their types, in order."""
        return [event["type"] for event in self._story(job_id)]

    def owners(self, job_id: str) -> list[str]:
        """Who took it up, in order."""
        return [event["data"]["owner"] for event in self._story(job_id) if event["type"] == "job_started"]

    def _story(self, job_id: str) -> list[dict[str, Any]]:
        page = self.http.get(f"/jobs/{job_id}/events", params={"limit": 1000}).raise_for_status().json()
        assert page["next"] is None
        return list(page["data"])

    def ended(self, job_id: str) -> dict[str, Any]:
        """The job, once it is in a final state."""
        self.until(lambda: self.job(job_id)["status"] in FINAL, f"job {job_id} ends", job_id)
        return self.job(job_id)

    def at_work(self, job_id: str) -> None:
        """Returns once its process has begun a stage."""
        self.until(lambda: "stage_started" in self.events(job_id), f"job {job_id} is at work", job_id)

    def until(self, is_so: Callable[[], T], what: str, job_id: str | None = None) -> T:
        """Look again and again until something is so; fails with the processes' last words if it never is."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := is_so()):
            if time.monotonic() > deadline:
                story = f"\n{self.job(job_id)}\n{self.events(job_id)}" if job_id else ""
                pytest.fail(f"{what}: not within {PATIENCE_SECONDS:.0f} s{story}\n{self._last_words()}")
            time.sleep(_LOOK_SECONDS)
        return found

    def _last_words(self) -> str:
        logs = sorted(self.settings.logs_dir.glob("*.log"))
        return "\n".join(f"{log.name}:\n  " + "\n  ".join(last_lines(log)) for log in logs)


def _environment(settings: Settings, given: dict[str, object]) -> dict[str, str]:
    """Nothing of the person's own settings; bytecode is kept, for many processes start."""
    clean = {
        name: value
        for name, value in child_environment(settings).items()
        if not name.startswith("SELFSPEC_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    ours = {f"SELFSPEC_{name.upper()}": str(value) for name, value in given.items()}
    return {**clean, **ours, "SELFSPEC_DATA_DIR": str(settings.data_dir)}


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
