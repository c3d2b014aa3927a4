"""The few calls of the HTTP API that the demo makes, and their answers as records.

Knows the API's shapes and nothing of what is shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import httpx

from app.core.errors import SelfspecError

ANSWER_SECONDS = 300.0  # a slow processor may take minutes for an answer
FINAL = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Stage:
    """How far one stage is; times in seconds."""

    name: str
    status: str
    done: int
    total: int | None
    seconds: float | None
    seconds_remaining: float | None


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the API shows it."""

    id: str
    status: str
    stages: tuple[Stage, ...]
    adapter: str | None
    error: str | None
    attempt: int
    waits_for: str | None = None

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def is_held(self) -> bool:
        """It goes on only when somebody resumes it."""
        return self.waits_for in ("resume", "review")


@dataclass(frozen=True, slots=True)
class Metric:
    """The expert and who else answered, 0 to 100; ``low`` to ``high`` is the 95 % interval of the difference."""

    task: str
    metric: str
    n: int
    against: str
    shots: int
    score: float
    expert: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A text and the adapter that computed it; None is the bare base."""

    text: str
    adapter: str | None


@dataclass(frozen=True, slots=True)
class AttachedAdapter:
    """Proof that an adapter is attached and acts."""

    name: str
    attached: bool
    num_modules: int
    probe_distance: float


class Client:
    """One service. Every refusal is a SelfspecError with the service's own words."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=ANSWER_SECONDS, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def specialize(
        self, domain: str, *, seeds: Path, evaluation: Path, recipe: Mapping[str, Any], idempotency_key: str
    ) -> Job:
        """POST /specialize with both files."""
        with seeds.open("rb") as seeds_file, evaluation.open("rb") as evaluation_file:
            body = self._call(
                "POST",
                "/specialize",
                data={"domain": domain, "recipe": json.dumps(dict(recipe))},
                files={"seeds": (seeds.name, seeds_file), "evaluation": (evaluation.name, evaluation_file)},
                headers={"Idempotency-Key": idempotency_key},
            )
        return _job(body)

    def job(self, job_id: str) -> Job:
        """GET /jobs/{id}."""
        return _job(self._call("GET", f"/jobs/{job_id}"))

    def metrics(self, job_id: str) -> list[Metric]:
        """GET /jobs/{id}/metrics."""
        names = [field.name for field in fields(Metric)]
        rows = self._call("GET", f"/jobs/{job_id}/metrics")["metrics"]
        return [Metric(**{name: row[name] for name in names}) for row in rows]

    def generate(self, instruction: str, text: str, *, domain: str | None, max_new_tokens: int = 128) -> Answer:
        """POST /generate: the domain's expert, or the bare base without one."""
        question = {"instruction": instruction, "input": text or None, "max_new_tokens": max_new_tokens}
        body = self._call("POST", "/generate", params={"domain": domain} if domain else {}, json=question)
        return Answer(body["text"], body["adapter"])

    def adapter(self, adapter_id: str) -> AttachedAdapter:
        """GET /adapters/{id}."""
        body = self._call("GET", f"/adapters/{adapter_id}")
        return AttachedAdapter(body["name"], body["attached"], body["num_modules"], body["probe_distance"])

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            answer = self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise SelfspecError(f"{method} {path}: no answer: {error}") from error
        if answer.is_error:
            raise SelfspecError(f"{method} {path} answered {answer.status_code}: {_reason(answer)}")
        return answer.json()


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]


def _job(body: Mapping[str, Any]) -> Job:
    error = body["error"]
    return Job(
        id=body["id"],
        status=body["status"],
        stages=tuple(_stage(stage) for stage in body["progress"]),
        adapter=body["adapter"],
        error=None if error is None else error["message"],
        attempt=body["attempt"],
        waits_for=body["waits_for"],
    )


def _stage(body: Mapping[str, Any]) -> Stage:
    return Stage(
        name=body["stage"],
        status=body["status"],
        done=body["done"],
        total=body["total"],
        seconds=body["seconds"],
        seconds_remaining=body["seconds_remaining"],
    )
