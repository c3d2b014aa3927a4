"""/jobs/{id}/rows: a review over HTTP."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from app.services.lease import Held
from tests.api.live import EVALUATION, SEEDS, Service
from tests.api.test_walk import work

RECIPE = {
    "preset": "quick",
    "num_examples": 5,
    "max_prompts": 20,
    "promotion": "always",
    "controls": [],
    "review": True,
}


@pytest.fixture
def held(service: Service) -> str:
    """A job that waits for its rows to be looked at."""
    job_id = str(service.specialize(recipe=RECIPE).json()["id"])
    with pytest.raises(Held):
        work(service, job_id)
    return job_id


def error(answer: httpx.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()["error"]


def test_a_review(service: Service, held: str) -> None:
    """Look, change, delete, restore, let go: what is learned and downloaded is what was left."""
    rows = f"/jobs/{held}/rows"
    page = service.http.get(rows, params={"limit": 3}).json()
    assert (page["stage"], page["is_open"], page["next"], len(page["data"])) == ("dataset", True, "2", 3)
    assert [row["input"] for row in page["data"]] == [seed["input"] for seed in SEEDS[:3]]
    rest = service.http.get(rows, params={"after": page["next"]}).json()
    assert [row["index"] for row in rest["data"]] == list(range(3, page["num_rows"]))
    assert rest["next"] is None

    changed = service.http.patch(f"{rows}/4", json={"output": " splendid "}).json()
    assert (changed["output"], changed["is_edited"], changed["input"]) == ("splendid", True, changed["was"]["input"])
    for _ in range(2):  # deleting what is deleted is no mistake
        assert service.http.delete(f"{rows}/0").json()["is_deleted"] is True
    service.http.delete(f"{rows}/1")
    assert service.http.post(f"{rows}/1/restore").json() == page["data"][1]
    assert service.http.get(f"{rows}/4").json() == changed

    assert service.http.post(f"/jobs/{held}/resume").status_code == 200
    work(service, held)
    learned = [json.loads(line) for line in service.http.get(f"/jobs/{held}/dataset").text.splitlines()]
    assert len(learned) == page["num_rows"] - 1
    assert [row["input"] for row in learned[:3]] == [seed["input"] for seed in SEEDS[1:4]]
    assert (learned[3]["output"], learned[3]["was"]) == ("splendid", changed["was"])
    followed = service.http.get(f"/jobs/{held}/dataset/{changed['id']}").json()
    assert (followed["row"], followed["example"]["output"], followed["was"]) == (3, "splendid", changed["was"])
    seeds = service.http.get(f"/seeds/{followed['seeds'][0]['id']}/rows").json()
    assert [row["is_edited"] for row in seeds["rows"] if row["id"] == changed["id"]] == [True]
    after = service.http.get(rows).json()
    assert (after["is_open"], after["num_edited"], after["num_deleted"]) == (False, 1, 1)
    [told] = [event for event in service.http.get(f"/jobs/{held}/events").json()["data"] if "reviewed" in event["type"]]
    assert (told["data"]["edited"], told["data"]["deleted"]) == (1, 1)


def test_rows_that_are_not_held(service: Service) -> None:
    job_id = service.specialize(recipe={**RECIPE, "review": False}).json()["id"]
    assert error(service.http.get(f"/jobs/{job_id}/rows"))[0] == 404
    work(service, job_id)
    assert service.http.get(f"/jobs/{job_id}/rows").json()["is_open"] is False
    answers = [
        service.http.patch(f"/jobs/{job_id}/rows/0", json={"output": "x"}),
        service.http.delete(f"/jobs/{job_id}/rows/0"),
        service.http.post(f"/jobs/{job_id}/rows/0/restore"),
    ]
    for answer in answers:
        status, told = error(answer)
        assert (status, told["param"]) == (409, "job_id")
        assert "ask for it with review in the recipe" in told["message"]


def test_what_cannot_be_learned_is_refused(service: Service, held: str) -> None:
    rows = f"/jobs/{held}/rows"
    for body, field, reason in (
        ({}, "body", "changes nothing"),
        ({"output": "  "}, "output", "is empty"),
        ({"output": None}, "output", "must be a text"),
        ({"output": 3}, "output", "valid string"),
        ({"task": "other"}, "task", "unknown key"),
        ({key: EVALUATION[0][key] for key in ("instruction", "input")}, "input", "leakage"),
    ):
        status, told = error(service.http.patch(f"{rows}/4", json=body))
        assert (status, told["problems"][0]["field"]) == (422, field)
        assert reason in told["problems"][0]["reason"]
    assert error(service.http.patch(f"{rows}/900", json={"output": "x"}))[0] == 404
    assert error(service.http.patch(f"{rows}/-1", json={"output": "x"}))[0] == 422
    assert error(service.http.patch(f"{rows}/{2**31}", json={"output": "x"}))[0] == 422
    assert error(service.http.get("/jobs/job-1/rows"))[0] == 404
    assert error(service.http.get(rows, params={"stage": "dataset-9"}))[1]["param"] == "stage"
    assert error(service.http.get(rows, params={"limit": 1001}))[0] == 422
    service.http.delete(f"{rows}/4")
    assert error(service.http.patch(f"{rows}/4", json={"output": "x"}))[0] == 409
    assert service.http.get(rows).json()["num_edited"] == 0


def test_a_job_with_no_row_left_is_not_let_go(service: Service, held: str) -> None:
    num_rows = service.http.get(f"/jobs/{held}/rows").json()["num_rows"]
    for index in range(num_rows):
        service.http.delete(f"/jobs/{held}/rows/{index}")
    status, told = error(service.http.post(f"/jobs/{held}/resume"))
    assert status == 409
    assert f"all {num_rows} rows of dataset are deleted" in told["message"]
    assert service.http.get(f"/jobs/{held}").json()["waits_for"] == "review"
