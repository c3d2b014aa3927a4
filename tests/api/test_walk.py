"""The main job over HTTP with the fake engine: seeds in, a served expert out. The worker's use case runs right here."""

from __future__ import annotations

import io
import json
import tarfile

from app.engine.fake import FakeEngine
from app.services.lease import Lease
from app.services.run_job import JobRunner
from tests.api.live import EVALUATION, SEEDS, Service

RECIPE = {"preset": "quick", "num_examples": 5, "max_prompts": 20, "promotion": "always"}


def work(service: Service, job_id: str) -> None:
    """What a worker does with a job."""
    resources = service.resources
    with resources.database.session() as uow:
        claim = uow.jobs.claim(job_id, owner="test", now=resources.clock(), lease_seconds=600)
        uow.commit()
    assert claim is not None
    JobRunner(
        Lease(job_id, "test", claim.attempt),
        database=resources.database,
        artifacts=resources.artifacts,
        engine=FakeEngine(base_name=resources.settings.base),
        clock=resources.clock,
    ).run()


def test_the_same_job_twice_makes_one_version(service: Service) -> None:
    """The same weights are the same adapter; each job has its own figures, and the adapter shows them once."""
    first, second = (service.specialize(recipe=RECIPE).json()["id"] for _ in range(2))
    work(service, first)
    work(service, second)
    jobs = [service.http.get(f"/jobs/{job_id}").json() for job_id in (first, second)]
    assert jobs[0]["adapter"] == jobs[1]["adapter"]
    adapter = service.http.get(f"/adapters/{jobs[0]['adapter']}").json()
    for job_id in (first, second):
        assert service.http.get(f"/jobs/{job_id}/metrics").json()["metrics"] == adapter["metrics"]
    assert len(service.http.get("/domains/finance").json()["versions"]) == 1


def test_seeds_in_expert_out(service: Service) -> None:
    job_id = service.specialize(recipe=RECIPE).json()["id"]
    work(service, job_id)

    job = service.http.get(f"/jobs/{job_id}").json()
    assert (job["status"], job["error"]) == ("succeeded", None)
    assert all(stage["status"] == "succeeded" and stage["done"] == stage["total"] for stage in job["progress"])

    rows = [json.loads(line) for line in service.http.get(f"/jobs/{job_id}/dataset").text.splitlines()]
    assert [row["input"] for row in rows if row["origin"] == "seed"] == [seed["input"] for seed in SEEDS]
    assert any(row["origin"] == "generated" for row in rows)
    assert not {row["input"] for row in rows} & {item["input"] for item in EVALUATION}

    figures = service.http.get(f"/jobs/{job_id}/metrics").json()
    assert {(row["task"], row["metric"]) for row in figures["metrics"]} >= {
        ("mean", "f1"),
        ("mean", "rougeL"),
        ("sentiment", "f1"),
    }
    assert (figures["about"]["reported_on"], figures["about"]["n"]) == ("evaluation", len(EVALUATION))
    assert figures["off_domain"]["perplexity"]["ratio"] > 0

    adapter = service.http.get(f"/adapters/{job['adapter']}").json()
    assert adapter["template"]["name"] == "alpaca-v1"
    assert (adapter["name"], adapter["is_champion"], adapter["job"]) == ("finance@v1", True, job_id)
    assert (adapter["decision"], "promotes always" in adapter["reason"]) == ("promote", True)
    [promotion] = service.http.get("/domains/finance/promotions").json()["data"]
    assert (promotion["job"], promotion["reason"]) == (job_id, f"gate: {adapter['reason']}")
    answer = service.http.post("/generate?domain=finance", json={"instruction": "What?"}).json()
    assert answer["adapter"] == job["adapter"]

    archive = service.http.get(f"/adapters/{job['adapter']}/download").content
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {name.split("/")[1] for name in tar.getnames()}
    assert files >= {"adapter_config.json", "adapter_model.safetensors", "template.json", "manifest.json"}
