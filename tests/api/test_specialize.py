"""POST /specialize and the jobs it makes."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from app.core.errors import Fault, StageFailed
from app.core.states import JobStatus
from app.services.seed_sets import load_seeds
from app.storage.jobs import Failure
from tests.api.live import EVALUATION, SEEDS, Service, serve

CSV = 'task;instruction;input;output\nqa;What?;"a;\nb";c\nqa;What?;;d\n'


def uploaded(service: Service, job_id: str) -> list[dict[str, str]]:
    """The seeds of a job, as a worker would read them."""
    job = service.job(job_id)
    with service.resources.database.session(read_only=True) as uow:
        seed_set = uow.seed_sets.get(job.seed_set_id)
    seeds = load_seeds(service.resources.artifacts, seed_set.artifact_digest)
    return [{"task": s.task, "instruction": s.instruction, "input": s.input, "output": s.output} for s in seeds]


def test_json(service: Service) -> None:
    response = service.specialize(description=" Money ", recipe={"preset": "quick", "lora_rank": 4, "seed": 7})
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/jobs/{job['id']}"
    assert (job["domain"], job["status"], job["num_seeds"], job["num_evaluation"]) == ("finance", "queued", 4, 1)
    assert (job["recipe"]["lora_rank"], job["recipe"]["seed"], job["recipe"]["preset"]) == (4, 7, "quick")
    assert {stage["status"] for stage in job["progress"]} == {"pending"}
    assert uploaded(service, job["id"]) == SEEDS
    assert service.sent() == [job["id"]]
    seen = service.http.get(response.headers["location"]).json()
    assert seen.pop("estimated_finish") > job.pop("estimated_finish")  # it has not begun, so it ends later
    assert seen == job
    assert service.http.get("/domains/finance").json()["description"] == "Money"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("seeds.jsonl", "".join(json.dumps(seed) + "\r\n" for seed in SEEDS)),
        ("seeds.jsonl", "\ufeff" + "\n\n".join(json.dumps(seed) for seed in SEEDS)),
        ("seeds.json", json.dumps(SEEDS, indent=2)),
        ("seeds", json.dumps(SEEDS)),
        ("seeds.csv", "task,instruction,input,output\n" + "".join(",".join(seed.values()) + "\n" for seed in SEEDS)),
        (
            "noname.txt",
            "output\tinput\ttask\tinstruction\n"
            + "".join(
                "\t".join(seed[key] for key in ("output", "input", "task", "instruction")) + "\n" for seed in SEEDS
            ),
        ),
    ],
)
def test_files(service: Service, name: str, content: str) -> None:
    """JSONL, a JSON list and CSV hold the same seeds, with any line ends, a byte order mark or blank lines."""
    response = service.http.post(
        "/specialize",
        data={"domain": "finance", "recipe": '{"preset": "quick"}', "base": "", "description": "Money"},
        files={"seeds": (name, content.encode()), "evaluation": ("", b"")},
    )
    assert response.status_code == 202, response.text
    assert uploaded(service, response.json()["id"]) == SEEDS
    assert response.json()["num_evaluation"] is None


def test_csv_texts_may_hold_anything(service: Service) -> None:
    files = {"seeds": ("a.csv", CSV.encode()), "evaluation": ("e.jsonl", json.dumps(EVALUATION[0]).encode())}
    response = service.http.post("/specialize", data={"domain": "qa"}, files=files)
    assert [(seed["input"], seed["output"]) for seed in uploaded(service, response.json()["id"])] == [
        ("a;\nb", "c"),
        ("", "d"),
    ]


def test_separators_inside_json_texts(service: Service) -> None:
    """Bug class: str.splitlines cuts JSONL at U+2028, which a JSON text may hold."""
    seed = {**SEEDS[0], "input": "one\u2028two\u0085three"}
    content = json.dumps(seed, ensure_ascii=False) + "\n" + json.dumps(SEEDS[1])
    response = service.http.post("/specialize", data={"domain": "x"}, files={"seeds": ("s.jsonl", content.encode())})
    assert uploaded(service, response.json()["id"])[0] == seed


def test_bundled_examples_are_accepted(service: Service) -> None:
    for folder in sorted((Path(__file__).parents[2] / "examples").iterdir()):
        if not (folder / "seeds.jsonl").exists():
            continue
        files = {role: (f"{role}.jsonl", (folder / f"{role}.jsonl").read_bytes()) for role in ("seeds", "evaluation")}
        response = service.http.post("/specialize", data={"domain": folder.name}, files=files)
        assert response.status_code == 202, response.text


def test_keys_that_are_not_used_are_told(service: Service) -> None:
    job = service.specialize(seeds=[{**SEEDS[0], "id": 1}, {**SEEDS[1], "category": "x"}]).json()
    events = service.http.get(f"/jobs/{job['id']}/events").json()["data"]
    assert [event["type"] for event in events] == ["job_queued", "seeds_examined", "keys_ignored"]
    assert (events[2]["level"], events[2]["data"]) == ("warning", {"keys": ["category", "id"]})


def test_what_the_doctor_finds_is_told(service: Service) -> None:
    """At upload too, with the remedy, though nothing of it forbids the job."""
    job = service.specialize().json()
    event = service.http.get(f"/jobs/{job['id']}/events").json()["data"][1]
    assert (event["type"], event["level"]) == ("seeds_examined", "warning")
    assert event["message"].startswith("4 seeds of 1 task, 1 evaluation item: ")
    assert event["data"]["tasks"] == {"sentiment": 4}
    [missing] = [found for found in event["data"]["findings"] if found["code"] == "label_missing"]
    assert "no seed has the answer 'bad'" in missing["message"]
    assert missing["remedy"]


def test_references_are_kept(service: Service) -> None:
    """In JSON, and in CSV as a JSON list; the output itself and what is there twice is no further answer."""
    rows = 'task,instruction,output,references\nt,One?,a,"[""b"", "" c "", ""b"", ""a""]"\nt,Two?,d,\n'
    by_file = service.http.post("/specialize", data={"domain": "x"}, files={"seeds": ("s.csv", rows.encode())})
    by_json = service.specialize(
        seeds=[
            {"task": "t", "instruction": "One?", "output": "a", "references": ["b", "c"]},
            {"task": "t", "instruction": "Two?", "output": "d", "references": None},
        ]
    )
    for answer in (by_file, by_json):
        job = service.job(answer.json()["id"])
        with service.resources.database.session(read_only=True) as uow:
            digest = uow.seed_sets.get(job.seed_set_id).artifact_digest
        seeds = load_seeds(service.resources.artifacts, digest)
        assert [seed.references for seed in seeds] == [("b", "c"), ()]
        assert "keys_ignored" not in str(service.http.get(f"/jobs/{job.id}/events").json())


class TestLabelled:
    """The user's own labelled rows, to compare with."""

    ROWS: ClassVar = [*SEEDS, {**SEEDS[0], "input": "Profit of firm 8"}]

    def test_they_are_stored_beside_the_seeds(self, service: Service) -> None:
        """From JSON and from a file; seeds may be among them, and the job has a stage that learns them."""
        rows = "".join(json.dumps(row) + "\n" for row in self.ROWS)
        by_file = service.http.post(
            "/specialize",
            data={"domain": "finance", "recipe": '{"preset": "quick"}'},
            files={
                "seeds": ("s.json", json.dumps(SEEDS).encode()),
                "evaluation": ("e.json", json.dumps(EVALUATION).encode()),
                "labelled": ("l.jsonl", rows.encode()),
            },
        )
        for answer in (service.specialize(labelled=self.ROWS), by_file):
            assert "adapter-labelled" in [stage["stage"] for stage in answer.json()["progress"]]
            job = service.job(answer.json()["id"])
            assert job.labelled_set_id is not None
            with service.resources.database.session(read_only=True) as uow:
                digest = uow.seed_sets.get(job.labelled_set_id).artifact_digest
            labelled = load_seeds(service.resources.artifacts, digest)
            assert [row.input for row in labelled] == [row["input"] for row in self.ROWS]
            assert uploaded(service, job.id) == SEEDS

    def test_what_is_held_out_is_left_out(self, service: Service) -> None:
        """Without an evaluation set seeds judge: learning those would flatter the supervised adapter."""
        job = service.specialize(evaluation=None, labelled=SEEDS).json()
        told = service.http.get(f"/jobs/{job['id']}/events").json()["data"]
        assert told[0]["data"] == {"seeds": 4, "evaluation": 0, "labelled": 3}
        codes = {found["code"]: found["message"] for found in told[1]["data"]["findings"]}
        assert codes["labelled_left_out"].startswith("1 labelled row left out")


LAW = [
    {"task": "clause", "instruction": "Which clause?", "input": f"Text {number}", "output": f"kind {number}"}
    for number in range(3)
]


class TestDomains:
    """One expert of several domains."""

    def send(self, service: Service, domains: object, **changes: Any) -> httpx.Response:
        return service.specialize(
            **{"domain": "both", "seeds": None, "evaluation": None, "domains": domains, **changes}
        )

    def test_sent_and_named(self, service: Service) -> None:
        """One domain by what its newest job was given, the other by its seeds."""
        service.specialize(seeds=SEEDS[:2])
        service.specialize(description="Reports")
        job = self.send(service, ["finance", {"domain": "law", "description": "Contracts", "seeds": LAW}]).json()
        assert (job["num_seeds"], job["num_evaluation"]) == (7, 1)
        stored = service.job(job["id"])
        with service.resources.database.session(read_only=True) as uow:
            digest = uow.seed_sets.get(stored.seed_set_id).artifact_digest
        seeds = load_seeds(service.resources.artifacts, digest)
        assert [(seed.domain, seed.task) for seed in seeds] == [("finance", "sentiment")] * 4 + [("law", "clause")] * 3
        assert service.http.get("/domains/both").json()["description"] == "finance: Reports; law: Contracts"

    def test_unknown_domain(self, service: Service) -> None:
        answer = self.send(service, ["finance", {"domain": "law", "seeds": LAW}])
        problem = answer.json()["error"]["problems"][0]
        assert (answer.status_code, problem["line"], problem["source"]) == (422, 1, "domains")
        assert "no seeds of domain 'finance'" in problem["reason"]
        assert service.stored() == []

    def test_a_form_cannot_hold_them(self, service: Service) -> None:
        files = {"seeds": ("s.json", json.dumps(SEEDS).encode())}
        answer = service.http.post("/specialize", data={"domain": "both", "domains": "finance"}, files=files)
        told = {problem["field"]: problem["reason"] for problem in answer.json()["error"]["problems"]}
        assert "as application/json" in told["domains"]


class TestIdempotency:
    """The Idempotency-Key header."""

    KEY: ClassVar = {"Idempotency-Key": "once"}
    BODY: ClassVar = {"domain": "finance", "seeds": SEEDS, "recipe": {"preset": "quick"}}

    def test_repeat_gives_the_same_job(self, service: Service) -> None:
        """Also when the second time the same seeds come as a file, and after the job has ended."""
        first = service.http.post("/specialize", json=self.BODY, headers=self.KEY)
        stored = service.stored()
        service.http.post(first.headers["location"] + "/cancel")
        lines = "\n".join(json.dumps(seed) for seed in SEEDS)
        again = service.http.post(
            "/specialize",
            data={"domain": "finance", "recipe": '{"preset": "quick"}'},
            files={"seeds": ("s.jsonl", lines.encode())},
            headers=self.KEY,
        )
        assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
        assert again.headers["idempotent-replayed"] == "true"
        assert "idempotent-replayed" not in first.headers
        assert again.json()["status"] == "cancelled"
        assert service.stored() == stored

    @pytest.mark.parametrize(
        "change", [{"domain": "law"}, {"seeds": SEEDS[:3]}, {"recipe": {"preset": "paper"}}, {"description": "x"}]
    )
    def test_another_request_with_the_key_is_refused(self, service: Service, change: dict[str, Any]) -> None:
        service.http.post("/specialize", json=self.BODY, headers=self.KEY)
        stored = service.stored()
        response = service.http.post("/specialize", json={**self.BODY, **change}, headers=self.KEY)
        assert response.status_code == 409
        assert response.json()["error"]["param"] == "Idempotency-Key"
        assert service.stored() == stored

    def test_at_once(self, service: Service) -> None:
        """Eight requests race with one key: one job, eight times the same answer."""

        def post(_: int) -> httpx.Response:
            return httpx.post(f"{service.url}/specialize", json=self.BODY, headers=self.KEY, timeout=60, verify=False)

        with ThreadPoolExecutor(8) as pool:
            responses = list(pool.map(post, range(8)))
        assert {response.status_code for response in responses} == {202}
        assert len({response.json()["id"] for response in responses}) == 1
        assert service.num_jobs() == 1


def test_broker_away(start: Callable[..., Service]) -> None:
    """The job is accepted and stays queued; once the broker is back, the sweep sends it."""
    service = start(lease_seconds=0.1, heartbeat_seconds=0.05)
    folder = service.resources.settings.broker_dir
    folder.write_text("in the way of the broker's folder")
    response = service.specialize()
    assert (response.status_code, response.json()["status"]) == (202, "queued")
    assert not service.http.get("/ready").json()["checks"]["broker"]["ok"]
    folder.unlink()
    assert service.sent(within_seconds=20) == [response.json()["id"]]


def test_queued_jobs_are_sent_again_at_start(tmp_path: Path) -> None:
    """A message lost while nothing ran: the next start sends it."""
    with serve(tmp_path) as service:
        job_id = service.specialize().json()["id"]
        assert service.sent() == [job_id]
    with serve(tmp_path) as service:
        assert service.sent(within_seconds=20) == [job_id]


class TestJobs:
    """GET /jobs and what lies below."""

    def test_pages(self, service: Service) -> None:
        ids = [service.specialize(domain=f"d{number % 2}").json()["id"] for number in range(5)][::-1]
        first = service.http.get("/jobs", params={"limit": 2}).json()
        second = service.http.get("/jobs", params={"limit": 3, "after": first["next"]}).json()
        assert [job["id"] for job in first["data"] + second["data"]] == ids
        assert second["next"] is None
        filtered = service.http.get("/jobs", params={"domain": "d1", "status": "queued"}).json()
        assert [job["domain"] for job in filtered["data"]] == ["d1", "d1"]

    def test_progress(self, service: Service) -> None:
        """Seconds remaining come from the pace so far; an ended job's clock stands still."""
        job_id = service.specialize().json()["id"]
        database, now = service.resources.database, service.resources.clock()
        with database.session() as uow:
            uow.jobs.claim(job_id, owner="w", now=now, lease_seconds=30)
            uow.stage_runs.start(job_id, "instructions", now=now, total=10)
            uow.stage_runs.progress(job_id, "instructions", done=4)
            uow.commit()
        job = service.http.get(f"/jobs/{job_id}").json()
        stage = job["progress"][0]
        assert (job["status"], job["stage"], job["attempt"]) == ("running", "instructions", 1)
        assert (stage["status"], stage["done"], stage["total"]) == ("running", 4, 10)
        assert stage["seconds_remaining"] == pytest.approx(stage["seconds"] / 4 * 6)
        assert job["progress"][1]["seconds_remaining"] is None

    def test_failure(self, service: Service) -> None:
        job_id = service.specialize().json()["id"]
        now = service.resources.clock()
        with service.resources.database.session() as uow:
            failure = Failure.of(StageFailed("responses", "no reply could be read", fault=Fault.USER, param="seeds"))
            uow.jobs.claim(job_id, owner="w", now=now, lease_seconds=30)
            uow.jobs.move(job_id, JobStatus.FAILED, now=now, failure=failure)
            uow.commit()
        assert service.http.get(f"/jobs/{job_id}").json()["error"] == {
            "code": "stage_failed",
            "message": "stage responses: no reply could be read",
            "param": "seeds",
            "fault": "user",
        }

    def test_cancel(self, service: Service) -> None:
        """A waiting job ends, a running one is asked to, an ended one stays; asking twice is told once."""
        waiting, running, ended = (service.specialize().json()["id"] for _ in range(3))
        with service.resources.database.session() as uow:
            uow.jobs.claim(running, owner="w", now=service.resources.clock(), lease_seconds=30)
            uow.commit()
        service.finish(ended, JobStatus.SUCCEEDED)
        told = {
            job: [service.http.post(f"/jobs/{job}/cancel").json() for _ in range(2)][1]
            for job in (waiting, running, ended)
        }
        assert [(job["status"], job["cancel_requested"]) for job in told.values()] == [
            ("cancelled", True),
            ("running", True),
            ("succeeded", False),
        ]
        events = [service.http.get(f"/jobs/{job}/events").json()["data"] for job in told]
        assert [[event["type"] for event in story].count("cancel_requested") for story in events] == [1, 1, 0]

    def test_events_are_paged(self, service: Service) -> None:
        job_id = service.specialize().json()["id"]
        with service.resources.database.session() as uow:
            for number in range(5):
                uow.events.add(job_id, "training_step", f"note {number}", now=service.resources.clock())
            uow.commit()
        seen: list[str] = []
        after: str | None = "0"
        while after is not None:
            page = service.http.get(f"/jobs/{job_id}/events", params={"after": after, "limit": 2}).json()
            seen += [event["message"] for event in page["data"]]
            after = page["next"]
        assert seen[2:] == [f"note {number}" for number in range(5)]

    def test_dataset_and_metrics(self, service: Service) -> None:
        """404 that says how far the job is, then the rows as they were stored and the figures."""
        job_id = service.specialize().json()["id"]
        for what in ("dataset", "metrics"):
            message = service.http.get(f"/jobs/{job_id}/{what}").json()["error"]["message"]
            assert message == f"job {job_id} has no {what} yet: it is queued"
        rows = [{"id": str(number), "output": "café"} for number in range(3)]
        artifact = service.resources.artifacts.put_rows(rows, kind="dataset")
        now = service.resources.clock()
        with service.resources.database.session() as uow:
            uow.stage_runs.finish(job_id, "dataset", now=now, artifact_digest=artifact.digest, done=3)
            uow.commit()
        response = service.http.get(f"/jobs/{job_id}/dataset")
        assert [json.loads(line) for line in response.text.splitlines()] == rows
        assert response.headers["content-type"].startswith("application/jsonl")
        assert f"{job_id}.jsonl" in response.headers["content-disposition"]

        expert = service.add_expert()
        metrics = service.http.get(f"/jobs/{expert.job_id}/metrics").json()
        assert [(row["task"], row["expert"], row["low"]) for row in metrics["metrics"]] == [
            ("sentiment", 30.0, 4.0),
            ("mean", 30.0, 4.0),
        ]
