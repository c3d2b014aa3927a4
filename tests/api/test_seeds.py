"""POST /seeds/doctor and GET /seeds/{id}/rows over HTTP, and the worked examples of both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from app.api import seed_examples
from app.api.schemas.lineage import RowLineageBody
from app.api.schemas.seeds import SeedReportBody, SeedRowsBody
from app.api.schemas.specialize import DoctorRequest, SpecializeRequest
from app.core.records import digest_of
from tests.api.live import EVALUATION, SEEDS, Service, serve

QUICK = {"preset": "quick"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serve(tmp_path_factory.mktemp("seeds") / "var") as running:
        yield running


def test_the_doctor_stores_nothing(service: Service) -> None:
    """From a form and from JSON, with a dry run too: the same report, and no trace."""
    stored = service.stored()
    by_json = service.http.post("/seeds/doctor", json={"seeds": SEEDS, "evaluation": EVALUATION, "recipe": QUICK})
    by_form = service.http.post(
        "/seeds/doctor",
        data={"recipe": json.dumps(QUICK)},
        files={"seeds": ("s.json", json.dumps(SEEDS)), "evaluation": ("e.json", json.dumps(EVALUATION))},
    )
    assert by_json.status_code == by_form.status_code == 200, by_form.text
    assert by_json.json() == by_form.json()
    assert by_json.json()["is_usable"]
    tried = service.http.post("/seeds/doctor?dry_run=3", json={"domain": "x", "seeds": SEEDS, "recipe": QUICK}).json()
    assert tried["dry_run"]["prompts"] == 3
    assert service.stored() == stored


def test_bad_content_is_no_bad_request(service: Service) -> None:
    """Every fault of the content is in the report; what cannot be read at all is refused."""
    body = {"seeds": [{"task": "x"}, 3], "recipe": {"epoch": 1}, "surprise": 1, "base": 3}
    answer = service.http.post("/seeds/doctor", json=body)
    assert answer.status_code == 200
    assert not answer.json()["is_usable"]
    told = {(problem["source"], problem["field"]) for problem in answer.json()["problems"]}
    assert told >= {
        ("body", "surprise"),
        ("seeds", "output"),
        ("seeds", "item"),
        (None, "recipe.epoch"),
        (None, "base"),
    }
    for content, kind, status in ((b"{", "application/json", 422), (b"x", "text/plain", 415)):
        assert service.http.post("/seeds/doctor", content=content, headers={"content-type": kind}).status_code == status


@pytest.mark.parametrize("dry_run", ["0", "51", "many"])
def test_dry_runs_are_bounded(service: Service, dry_run: str) -> None:
    answer = service.http.post(f"/seeds/doctor?dry_run={dry_run}", json={"domain": "x", "seeds": SEEDS})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "dry_run")


def test_a_dry_run_names_the_domain(service: Service) -> None:
    answer = service.http.post("/seeds/doctor?dry_run=1", json={"seeds": SEEDS})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "domain")


def test_a_seed_knows_its_jobs(service: Service) -> None:
    """Before anything was made of it; a seed that was never sent is not found."""
    first, second = (service.specialize(domain="known").json()["id"] for _ in range(2))
    seed_id = digest_of(*(SEEDS[1][key] for key in ("task", "instruction", "input", "output")))
    found = service.http.get(f"/seeds/{seed_id}/rows").json()
    assert [job["job"] for job in found["jobs"]][-2:] == [first, second]
    assert found["seed"] == {**SEEDS[1], "id": seed_id, "domain": "", "references": []}
    assert (found["rows"], found["next"]) == ([], None)
    answer = service.http.get("/seeds/0123/rows")
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "seed_id")


EXAMPLES: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (SeedReportBody, seed_examples.REPORT),
    (SeedRowsBody, seed_examples.SEED_ROWS),
    (RowLineageBody, seed_examples.ROW),
]


@pytest.mark.parametrize(("model", "example"), EXAMPLES, ids=lambda value: getattr(value, "__name__", ""))
def test_examples_are_whole(model: type[BaseModel], example: dict[str, Any]) -> None:
    assert model.model_validate(example).model_dump(mode="json") == example


def test_examples_can_be_sent(service: Service) -> None:
    """What the documentation shows works as it stands, and the report it shows is the one that comes."""
    DoctorRequest.model_validate(seed_examples.EXAMINE)
    SpecializeRequest.model_validate(seed_examples.SEVERAL)
    assert service.http.post("/specialize", json=seed_examples.SEVERAL).status_code == 202
    report = service.http.post("/seeds/doctor", json=seed_examples.EXAMINE).json()
    for key in ("is_usable", "summary", "tasks", "findings", "problems"):
        assert report[key] == seed_examples.REPORT[key], key
