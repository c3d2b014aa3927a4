"""The main job on the real base through real processes: seeds of two domains in, two experts served side by side.

HTTP, Celery, the worker and its child processes are what ``selfspec serve`` starts; only the sizes are tiny.
"""

from __future__ import annotations

import io
import json
import socket
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.bootstrap import migrate
from app.pipeline.template import ALPACA
from app.serve import local_url, run_service, wait_ready
from app.settings import Settings

pytestmark = pytest.mark.model

MOST_SECONDS = 240.0  # a job takes about fifteen on two cores
DOMAINS = {
    "finance": ("Is this good or bad news for the firm's shareholders?", "Profit rose by {} percent.", "good news"),
    "sports": ("Name the sport of this match report.", "They won by {} goals after extra time.", "football"),
}
RECIPE = {
    "preset": "quick",
    "num_examples": 2,
    "max_prompts": 4,
    "instruction_max_new_tokens": 32,
    "response_max_new_tokens": 8,
    "evaluation_max_new_tokens": 8,
    "lora_rank": 4,
    "batch_size": 4,
    "epochs": 3,
    "learning_rate": 3e-3,
    "promotion": "always",  # a handful of steps proves nothing about quality
}


@dataclass(frozen=True)
class Service:
    """The running service, and what each domain's job ended as."""

    http: httpx.Client
    jobs: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def monkeypatch() -> Iterator[pytest.MonkeyPatch]:
    """The environment of this module's processes."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def service(
    base_folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    """API and worker on a data folder of their own that borrows the base; both jobs have run."""
    data = tmp_path_factory.mktemp("walk data")
    (data / "models").mkdir()
    (data / "models" / base_folder.name).symlink_to(base_folder.absolute(), target_is_directory=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for name, value in {"DATA_DIR": str(data), "BASE": base_folder.name, "ENGINE": "real", "PORT": str(port)}.items():
        monkeypatch.setenv(f"SELFSPEC_{name}", value)
    settings = Settings()
    migrate(settings)
    with (
        run_service(settings) as processes,
        httpx.Client(base_url=local_url(settings), timeout=60, trust_env=False) as http,
    ):
        wait_ready(processes, url=local_url(settings), console=Console(quiet=True))
        ids = {domain: submit(http, domain) for domain in DOMAINS}
        jobs = {}
        for domain, job_id in ids.items():
            deadline = time.monotonic() + MOST_SECONDS
            while (job := http.get(f"/jobs/{job_id}").json())["status"] not in ("succeeded", "failed", "cancelled"):
                processes.check()
                assert time.monotonic() < deadline, job
                time.sleep(0.5)
            jobs[domain] = job
        yield Service(http, jobs)


def submit(http: httpx.Client, domain: str) -> str:
    instruction, text, output = DOMAINS[domain]
    items = [
        {"task": "reading", "instruction": instruction, "input": text.format(number), "output": output}
        for number in range(2, 12)
    ]
    body = {"domain": domain, "seeds": items[:8], "evaluation": items[8:], "recipe": RECIPE}
    answer = http.post("/specialize", json=body)
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_job_succeeds_and_shows_what_it_did(service: Service, domain: str) -> None:
    job = service.jobs[domain]
    assert (job["status"], job["error"], job["attempt"]) == ("succeeded", None, 1)
    assert {stage["status"] for stage in job["progress"]} == {"succeeded"}
    rows = [json.loads(line) for line in service.http.get(f"/jobs/{job['id']}/dataset").text.splitlines()]
    assert sum(row["origin"] == "seed" for row in rows) == 8
    metrics = service.http.get(f"/jobs/{job['id']}/metrics").json()["metrics"]
    assert {(row["task"], row["n"]) for row in metrics} >= {("mean", 2)}
    steps = [
        event["data"]
        for event in service.http.get(f"/jobs/{job['id']}/events").json()["data"]
        if event["type"] == "training_done"
    ]
    assert steps[0]["last_loss"] < 0.5 * steps[0]["first_loss"]


def test_each_expert_answers_as_itself_and_the_base_as_the_base(service: Service) -> None:
    texts = {}
    for domain, (instruction, text, output) in DOMAINS.items():
        question = {"instruction": instruction, "input": text.format(15), "max_new_tokens": 12}
        for asked in (domain, None):
            answer = service.http.post("/generate", params={"domain": asked} if asked else {}, json=question).json()
            assert answer["adapter"] == (service.jobs[domain]["adapter"] if asked else None)
            texts[domain, asked] = answer["text"]
        assert texts[domain, domain].strip().startswith(output)
        assert texts[domain, None] != texts[domain, domain]
    assert service.jobs["finance"]["adapter"] != service.jobs["sports"]["adapter"]
    for job in service.jobs.values():
        adapter = service.http.get(f"/adapters/{job['adapter']}").json()
        assert adapter["attached"] is True
        assert adapter["probe_distance"] > 0


def test_nobody_answers_for_a_domain_that_has_no_expert(service: Service) -> None:
    answer = service.http.post("/generate?domain=law", json={"instruction": "What?"})
    assert answer.status_code == 404
    assert set(answer.json()["error"]["domains"]) == set(DOMAINS)


@pytest.mark.parametrize("domain", DOMAINS)
def test_peft_loads_the_download_and_says_the_same(
    service: Service, base_folder: Path, tmp_path: Path, domain: str
) -> None:
    archive = service.http.get(f"/adapters/{service.jobs[domain]['adapter']}/download").content
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:  # not extractall: its safe form is missing from early 3.11, the other one warns later
            path = tmp_path / member.name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(as_file.read() if (as_file := tar.extractfile(member)) else b"")
    (folder,) = tmp_path.iterdir()
    assert {"template.json", "manifest.json"} <= {path.name for path in folder.iterdir()}

    instruction, text, output = DOMAINS[domain]
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    model: Any = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    expert: Any = PeftModel.from_pretrained(model, str(folder)).eval()
    prompt = tokenizer(ALPACA.render(instruction, text.format(15)), return_tensors="pt")
    with torch.inference_mode():
        ids = expert.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert str(tokenizer.decode(ids, skip_special_tokens=True)).strip().startswith(output)
