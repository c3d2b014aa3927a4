"""The real engine behind real HTTP: a new champion under load, and callers who leave in the middle of an answer."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.records import GenerationRequest
from app.engine.engine import TorchEngine
from app.models import Adapter
from app.pipeline.template import PLAIN
from tests.api.live import Service, serve
from tests.api.test_generate_stream import events
from tests.engine.tiny import make_model, write_adapter
from tests.limits.house import SECONDS, leftovers, let_go, open_engine
from tests.storage.samples import ATTACHMENT, DOMAIN, store_job, with_sample

pytestmark = pytest.mark.model  # seconds each, with the real engine

NUM_CLIENTS, NUM_SWITCHES = 4, 12
QUESTION: dict[str, Any] = {"instruction": "Good or bad?", "max_new_tokens": 12, "ignore_eos": True}
MIDDLING, LONG = 300, 900  # tokens of an answer that is still being written when something happens to it


@dataclass(frozen=True)
class House:
    """A service on the tiny base, with two versions of one expert."""

    service: Service
    engine: TorchEngine
    versions: dict[str, Adapter]  # by name, as finance@v1

    def promote(self, name: str) -> None:
        """Committed when it returns."""
        with self.service.resources.database.session() as uow:
            uow.domains.set_champion(
                DOMAIN, self.versions[name].id, now=self.service.resources.clock(), reason="a test"
            )
            uow.commit()

    def ask(self, http: httpx.Client, **changes: object) -> dict[str, Any]:
        response = http.post(f"/generate?domain={DOMAIN}", json={**QUESTION, **changes})
        assert response.status_code == 200, response.text
        return dict(response.json())

    def known(self, **changes: Any) -> dict[str, str]:
        """What each version says."""
        wanted = {**QUESTION, **changes}
        prompt = PLAIN.render(wanted["instruction"])
        return {
            name: self.engine.submit(
                GenerationRequest(prompt, adapter.id, wanted["max_new_tokens"], ignore_end=wanted["ignore_eos"])
            )
            .result(SECONDS)
            .text
            for name, adapter in self.versions.items()
        }


@pytest.fixture(scope="module")
def house(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    engine = open_engine(base_folder)
    with serve(tmp_path_factory.mktemp("house") / "var", engine=engine) as service:
        store_job(with_sample(service.resources.database))
        versions = [add_version(service, engine, seed) for seed in (1, 2)]
        yield House(service, engine, {adapter.name: adapter for adapter in versions})
        let_go(engine)
        assert leftovers(engine) == {}


def add_version(service: Service, engine: TorchEngine, seed: int) -> Adapter:
    """Random weights, stored as a job stores what it learned."""
    resources = service.resources
    draft = write_adapter(
        make_model("llama"), resources.artifacts.draft("job-1", f"adapter-{seed}"), seed=seed, scale=0.4
    )
    artifact = resources.artifacts.commit(draft, kind="adapter", recipe={}, parents=[])
    with resources.database.session() as uow:
        adapter = uow.adapters.add(
            DOMAIN,
            job_id="job-1",
            artifact_digest=artifact.digest,
            base=engine.wait_ready(),
            attachment=ATTACHMENT,
            alpha=8,
            num_parameters=1,
            template=json.dumps(PLAIN.to_dict()),
            now=resources.clock(),
        )
        uow.commit()
    engine.attach(adapter.id, artifact.folder)
    return adapter


def test_no_request_fails_while_champions_change(house: House) -> None:
    """Clients ask without pause; each answer is the named version's own, and a promotion holds from its commit on."""
    known, is_over = house.known(), threading.Event()
    assert len(set(known.values())) == 2

    def ask_on() -> list[dict[str, Any]]:
        answers = []
        with httpx.Client(base_url=house.service.url, timeout=SECONDS, trust_env=False, verify=False) as http:
            while not is_over.is_set():
                answers.append(house.ask(http))
        return answers

    house.promote("finance@v1")
    with ThreadPoolExecutor(NUM_CLIENTS) as threads:
        asking = [threads.submit(ask_on) for _ in range(NUM_CLIENTS)]
        try:
            after = []
            for name in islice(cycle(["finance@v2", "finance@v1"]), NUM_SWITCHES):
                house.promote(name)
                after.append((name, house.ask(house.service.http)["adapter_name"]))
        finally:
            is_over.set()
        answers = [answer for client in asking for answer in client.result(SECONDS)]
    assert all(promoted == answered for promoted, answered in after)
    assert {answer["adapter_name"] for answer in answers} == set(known)
    assert all(answer["text"] == known[answer["adapter_name"]] for answer in answers)
    assert all(answer["adapter"] == house.versions[answer["adapter_name"]].id for answer in answers)


def test_a_stream_ends_on_the_version_it_began_on(house: House) -> None:
    known = house.known(max_new_tokens=MIDDLING)
    house.promote("finance@v1")
    body = {**QUESTION, "max_new_tokens": MIDDLING, "stream": True}
    with house.service.http.stream("POST", f"/generate?domain={DOMAIN}", json=body) as response:
        told = events(response)
        assert next(told)[0] == "piece"
        with house.engine._loop.paused():
            assert len(house.engine._open) == 1  # half written
            house.promote("finance@v2")
        assert house.ask(house.service.http, max_new_tokens=MIDDLING)["text"] == known["finance@v2"]
        *_, (last, answer) = told
    assert (last, answer["adapter_name"]) == ("answer", "finance@v1")
    assert response.headers["x-selfspec-adapter"] == "finance@v1"
    assert answer["text"] == known["finance@v1"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param(f"/generate?domain={DOMAIN}", {**QUESTION, "max_new_tokens": LONG}, id="whole"),
        pytest.param(f"/generate?domain={DOMAIN}", {**QUESTION, "max_new_tokens": LONG, "stream": True}, id="stream"),
        pytest.param(
            "/v1/completions",
            {"model": DOMAIN, "prompt": "the firm", "max_tokens": LONG, "ignore_eos": True, "stream": True},
            id="openai",
        ),
        pytest.param(
            "/v1/chat/completions",
            {
                "model": "finance@v1",
                "messages": [{"role": "user", "content": "the firm"}],
                "max_tokens": LONG,
                "ignore_eos": True,
                "stream": True,
                "n": 3,
            },
            id="openai-chat",
        ),
    ],
)
def test_who_leaves_frees_row_and_cache_within_a_step(house: House, path: str, body: dict[str, Any]) -> None:
    """The loop is held at a step while the caller leaves: not one forward pass is computed for it after that."""
    engine, num_answers = house.engine, body.get("n", 1)
    house.promote("finance@v1")
    cancelled = engine.stats()["cancelled"]
    with leaving(house.service, path, body):
        while (shown := house.service.http.get("/engine").json())["batch"]["running"] < num_answers:
            assert engine.stats()["cancelled"] == cancelled
        assert shown["memory"]["cache"]["used"] > 0
        pause = engine._loop.paused()
        pause.__enter__()
        assert len(engine._open) == num_answers  # still being written
        batches = engine.stats()["batches"]
    for _ in range(1000):  # questions to the service, until it has heard that the caller left
        if not engine._open:
            break
        house.service.http.get("/health")
    pause.__exit__(None, None, None)
    shown = house.service.http.get("/engine").json()
    while shown["batch"]["running"]:
        shown = house.service.http.get("/engine").json()
    assert engine.stats()["batches"] == batches
    assert engine.stats()["cancelled"] == cancelled + num_answers
    assert shown["memory"]["cache"]["used"] == 0


def leaving(service: Service, path: str, body: dict[str, Any]) -> socket.socket:
    """A connection that asks, reads nothing and closes at the end of its block."""
    host, port = service.url.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    connection = socket.create_connection((host, int(port)))
    connection.sendall(head.encode() + content)
    return connection
