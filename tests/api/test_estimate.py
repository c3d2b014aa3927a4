"""POST /specialize/estimate over HTTP, and what jobs say about their end."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from app.api.estimate_example import ESTIMATE
from app.api.examples import SPECIALIZE
from app.api.schemas.estimate import EstimateBody
from app.core.presets import make_recipe
from app.pipeline.stages import walk
from tests.api.live import EVALUATION, SEEDS, Service

BODY: dict[str, Any] = {
    "domain": "finance",
    "seeds": SEEDS,
    "evaluation": EVALUATION,
    "recipe": {"preset": "quick"},
}


def lines(items: list[dict[str, str]]) -> bytes:
    return "\n".join(json.dumps(item) for item in items).encode()


def test_the_answer_is_that_of_the_example(service: Service) -> None:
    answer = service.http.post("/specialize/estimate", json=SPECIALIZE)
    assert answer.status_code == 200
    told = EstimateBody.model_validate(ESTIMATE, extra="forbid")
    given = EstimateBody.model_validate(answer.json(), extra="forbid")
    assert [each.stage for each in told.stages] == [each.stage for each in given.stages]
    assert [each.stage for each in given.stages] == [stage.name for stage in walk(make_recipe(SPECIALIZE["recipe"]))]
    assert told.time.seconds == pytest.approx(told.start.seconds + sum(each.time.seconds for each in told.stages))
    assert told.trained_tokens == sum(each.trained_tokens for each in told.stages)
    assert told.generated_tokens == sum(each.written_tokens for each in told.stages)
    assert (given.allowed_to_proceed, given.fits, given.basis.how) == (True, True, "assumed")


def test_a_form_is_estimated_as_json_is(service: Service) -> None:
    form = {"domain": "finance", "recipe": json.dumps(BODY["recipe"])}
    files = {"seeds": ("seeds.jsonl", lines(SEEDS)), "evaluation": ("evaluation.jsonl", lines(EVALUATION))}
    sent = service.http.post("/specialize/estimate", data=form, files=files)
    assert sent.status_code == 200
    drop = {"free_bytes"}
    as_json = service.http.post("/specialize/estimate", json=BODY).json()
    assert {k: v for k, v in sent.json().items() if k not in drop} == {
        k: v for k, v in as_json.items() if k not in drop
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"domain": "No Name!"},
        {"seeds": []},
        {"recipe": {"preset": "quick", "epoch": 3}},
        {"base": "another"},
        {"unheard": 1},
    ],
)
def test_it_is_refused_as_a_job_is(service: Service, changes: dict[str, Any]) -> None:
    answers = [service.http.post(path, json={**BODY, **changes}) for path in ("/specialize", "/specialize/estimate")]
    assert answers[0].status_code == answers[1].status_code >= 400
    assert answers[0].json() == answers[1].json()


def test_nothing_is_left_behind(service: Service) -> None:
    before = service.stored()
    assert service.http.post("/specialize/estimate", json=BODY).status_code == 200
    assert service.stored() == before
    assert service.sent() == []


def test_jobs_say_when_it_is_their_turn(service: Service) -> None:
    ids = [service.specialize(domain=f"d{number}").json()["id"] for number in range(3)]
    jobs = {job["id"]: job for job in service.http.get("/jobs").json()["data"]}
    assert [jobs[job_id]["queue_position"] for job_id in ids] == [1, 2, 3]
    ends = [datetime.fromisoformat(jobs[job_id]["estimated_finish"]) for job_id in ids]
    assert ends == sorted(ends)
    assert all(jobs[job_id]["seconds_remaining"] > 0 for job_id in ids)
    told = service.http.post("/specialize/estimate", json=BODY).json()
    assert (told["jobs_ahead"], told["queue_seconds"]) == (
        3,
        pytest.approx(sum(jobs[job_id]["seconds_remaining"] for job_id in ids), rel=0.01),
    )
    cancelled = service.http.post(f"/jobs/{ids[0]}/cancel").json()
    assert [cancelled[key] for key in ("queue_position", "seconds_remaining", "estimated_finish")] == [None] * 3
    assert service.http.get(f"/jobs/{ids[1]}").json()["queue_position"] == 1
