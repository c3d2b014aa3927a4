"""The service as a user runs it, on a data folder of its own, and the few calls of its API that a run takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from app.processes import Program, last_lines
from app.settings import Settings
from benchmarks.quality.data import Sets, lines_of
from benchmarks.serving.processes import ServerFailed, free_port, running, wait_ready

ANSWER_SECONDS = 600.0  # a corpus is read and indexed while its caller waits
EVENTS_A_PAGE = 1000
JOBS_A_PAGE = 100
ATTEMPTS = 5


class Refused(ValueError):
    """The service answered with a refusal; the message is its own."""


@dataclass(frozen=True, slots=True)
class Service:
    """A running service. Every call raises Refused for a refusal and ServerFailed if the service has ended."""

    http: httpx.Client
    process: psutil.Process
    program: Program

    def post_corpus(self, path: Path) -> str:
        """Its id; the same passages get the same one."""
        return str(self._call("POST", "/corpora", files={"file": (path.name, path.read_bytes())})["id"])

    def specialize(self, domain: str, sets: Sets, recipe: Mapping[str, Any], *, key: str) -> dict[str, Any]:
        """The job, a new one or the one that this key made."""
        files = {
            name: (f"{name}.jsonl", lines_of(items).encode())
            for name, items in (("seeds", sets.seeds), ("evaluation", sets.evaluation))
        }
        body = {"domain": domain, "recipe": json.dumps(dict(recipe))}
        answer: dict[str, Any] = self._call(
            "POST", "/specialize", data=body, files=files, headers={"Idempotency-Key": key}
        )
        return answer

    def job(self, job_id: str) -> dict[str, Any]:
        """How it stands."""
        answer: dict[str, Any] = self._call("GET", f"/jobs/{job_id}")
        return answer

    def attend_to(self, job_id: str) -> None:
        """Let this job go on alone: others that calls with other choices left are paused, as this one may have been."""
        for status in ("queued", "running"):
            for job in self._call("GET", "/jobs", params={"status": status, "limit": JOBS_A_PAGE})["data"]:
                is_paused = job["waits_for"] == "resume"
                if (job["id"] == job_id) != is_paused:
                    continue
                with suppress(Refused):  # it has just ended
                    self._call("POST", f"/jobs/{job['id']}/{'resume' if is_paused else 'pause'}")

    def metrics(self, job_id: str) -> dict[str, Any]:
        """Figures of a job that has succeeded."""
        answer: dict[str, Any] = self._call("GET", f"/jobs/{job_id}/metrics")
        return answer

    def events(self, job_id: str) -> Iterator[dict[str, Any]]:
        """All that happened, oldest first."""
        after = "0"
        while after is not None:
            page = self._call("GET", f"/jobs/{job_id}/events", params={"after": after, "limit": EVENTS_A_PAGE})
            yield from page["data"]
            after = page["next"]

    def base(self) -> str:
        """The base as loaded, in the service's words."""
        return str(self._call("GET", "/ready")["checks"]["base"]["detail"])

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        answer = self._ask(method, path, **arguments)
        if answer.is_error:
            raise Refused(f"{method} {path} answered {answer.status_code}: {_reason(answer)}")
        return answer.json()

    def _ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """A busy machine may keep an answer waiting: a question is asked again, unless the service is gone."""
        for _ in range(ATTEMPTS):
            try:
                return self.http.request(method, path, **arguments)
            except httpx.HTTPError as error:
                reason = error
            if not self.process.is_running() or self.process.status() == psutil.STATUS_ZOMBIE:
                break
            time.sleep(1)
        told = "\n".join(last_lines(self.program.log))
        raise ServerFailed(f"{method} {path}: no answer ({reason}); the end of {self.program.log}:\n{told}")


@contextmanager
def serving(folder: Path, *, base: str, settings: Mapping[str, str]) -> Iterator[Service]:
    """``selfspec serve`` on a data folder, as long as the context lasts. Raises ServerFailed if it does not start."""
    folder.mkdir(parents=True, exist_ok=True)
    share_models(folder)
    port = free_port()
    environment = {
        **{f"SELFSPEC_{name.upper()}": value for name, value in settings.items()},
        "SELFSPEC_DATA_DIR": str(folder),
        "SELFSPEC_BASE": base,
        "SELFSPEC_PORT": str(port),
    }
    program = Program("service", (sys.executable, "-m", "app.cli", "serve"), folder / "logs" / "serve.log")
    with running(program, environment=environment) as process:
        url = f"http://127.0.0.1:{port}"
        wait_ready(program, process, f"{url}/ready")
        with httpx.Client(base_url=url, timeout=ANSWER_SECONDS, trust_env=False) as http:
            yield Service(http, process, program)


def share_models(folder: Path) -> None:
    """Bases are fetched once for all data folders."""
    models = Settings().resolved_models_dir.absolute()
    models.mkdir(parents=True, exist_ok=True)
    if not (folder / "models").exists():
        (folder / "models").unlink(missing_ok=True)  # a link to what is gone
        (folder / "models").symlink_to(models, target_is_directory=True)


def fetch_base(base: str) -> Path:
    """The folder of a base, fetched if it is not here. Raises ServerFailed in the fetcher's words."""
    command = [sys.executable, "-m", "app.cli", "models", "pull"]
    done = subprocess.run(command, env={**os.environ, "SELFSPEC_BASE": base}, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise ServerFailed(f"the base {base} could not be fetched")
    return Path(done.stdout.strip().splitlines()[-1])


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:300]
