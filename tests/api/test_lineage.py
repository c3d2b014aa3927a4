"""GET /jobs/{id}/dataset/{row} and /seeds/{id}/rows of a job that ran."""

from __future__ import annotations

from tests.api.live import Service
from tests.api.test_walk import work

RECIPE = {"preset": "quick", "num_examples": 5, "max_prompts": 20, "promotion": "always", "controls": []}


def test_from_a_row_to_its_seeds_and_back(service: Service) -> None:
    job_id = service.specialize(recipe=RECIPE).json()["id"]
    work(service, job_id)
    row = service.http.get(f"/jobs/{job_id}/dataset/5").json()
    assert (row["job"], row["row"], row["example"]["origin"]) == (job_id, 5, "generated")
    assert row["example"]["input"] in row["reply"]["text"]
    assert row["seeds"][0]["input"] in row["reply"]["prompt"]
    assert row["answer"]["text"].strip() == row["example"]["output"]
    assert row["instruction_writer"] == row["response_writer"] == {"id": "base", "name": None, "stage": None}

    found = service.http.get(f"/seeds/{row['seeds'][0]['id']}/rows").json()
    assert row["example"]["id"] in {each["id"] for each in found["rows"]}
    assert found["jobs"][0]["adapter"]["name"] == "finance@v1"

    own = service.http.get(f"/jobs/{job_id}/dataset/0").json()
    assert (own["example"]["origin"], own["response_writer"]["id"], own["reply"]) == ("seed", "user", None)

    missing = service.http.get(f"/jobs/{job_id}/dataset/900")
    assert (missing.status_code, missing.json()["error"]["param"]) == (404, "row")
    assert "has 9 rows, 0 to 8" in missing.json()["error"]["message"]
