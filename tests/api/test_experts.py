"""Domains, adapters and /generate: who answers, and that nobody else does."""

from __future__ import annotations

import io
import json
import socket
import tarfile
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from app.core.records import Completion, GenerationRequest, Piece
from app.engine.fake import FakeEngine
from app.pipeline.template import ALPACA
from tests.api.live import Service

QUESTION = {"instruction": "What is it?", "input": "A thing.", "max_new_tokens": 12, "seed": 3, "temperature": 0.5}


class FickleEngine(FakeEngine):
    """Evicts an adapter between being attached and being asked, ``times`` times."""

    def __init__(self, *, times: int) -> None:
        super().__init__()
        self.times = times

    def submit(
        self, request: GenerationRequest, *, on_piece: Callable[[Piece], None] | None = None
    ) -> Future[Completion]:
        if self.times > 0 and request.adapter is not None:
            self.times -= 1
            self.detach(request.adapter)
        return super().submit(request, on_piece=on_piece)


class LyingEngine(FakeEngine):
    """Lets the base answer whoever was asked."""

    def submit(
        self, request: GenerationRequest, *, on_piece: Callable[[Piece], None] | None = None
    ) -> Future[Completion]:
        future: Future[Completion] = Future()
        future.set_result(Completion("base text", "stop", 1, 2, None))
        return future


def error_of(service: Service, status: int, *, domain: str | None = None, **changes: Any) -> dict[str, Any]:
    params = {} if domain is None else {"domain": domain}
    response = service.http.post("/generate", params=params, json={**QUESTION, **changes})
    assert response.status_code == status, response.text
    return dict(response.json()["error"])


def test_base_and_experts_answer_for_themselves(service: Service) -> None:
    """Each answer names the adapter that computed it, and is what the engine says to that adapter's own prompt."""
    experts = {"finance": service.add_expert("finance"), "law": service.add_expert("law", weights=b"\2" * 32)}
    texts = set()
    for domain, adapter in [("finance", experts["finance"]), (None, None), ("law", experts["law"])]:
        response = service.http.post("/generate", params={"domain": domain} if domain else {}, json=QUESTION)
        answer = response.json()
        adapter_id = adapter.id if adapter else None
        assert (answer["domain"], answer["adapter"]) == (domain, adapter_id)
        assert answer["adapter_name"] == (f"{domain}@v1" if domain else None)
        assert response.headers["x-selfspec-adapter"] == (adapter.name if adapter else "none")
        assert response.headers["x-selfspec-adapter-id"] == (adapter_id or "none")
        request = GenerationRequest(ALPACA.render("What is it?", "A thing."), adapter_id, 12, 0.5, 1.0, 3)
        assert answer["text"] == service.resources.engine.generate([request])[0].text
        assert (
            answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
        )
        assert answer["base"] == "fake-base"
        texts.add(answer["text"])
    assert len(texts) == 3


def test_new_champion_answers_at_once(service: Service) -> None:
    first = service.add_expert()
    assert service.http.post("/generate?domain=finance", json=QUESTION).json()["adapter"] == first.id
    second = service.add_expert(weights=b"\7" * 32)
    answer = service.http.post("/generate?domain=finance", json=QUESTION).json()
    assert (answer["adapter"], answer["adapter_name"]) == (second.id, "finance@v2")


def test_unknown_domain_lists_the_domains(service: Service) -> None:
    """A domain whose job has not ended has no expert yet, and is not served by the base."""
    assert "none yet" in error_of(service, 404, domain="finance")["message"]
    service.add_expert("law")
    service.specialize(domain="finance")
    error = error_of(service, 404, domain="finance")
    assert (error["code"], error["param"], error["domains"]) == ("domain_not_found", "domain", ["law"])
    assert "law" in error["message"]
    assert service.http.get("/domains/other").json()["error"]["domains"] == ["law"]


def test_a_misspelt_request_is_never_answered_by_the_base(service: Service) -> None:
    for query in ("?domain=", "?domian=finance", "?domain=Finance", "?domain=a%2Fb"):
        response = service.http.post(f"/generate{query}", json=QUESTION)
        assert response.status_code == 422, query
    assert error_of(service, 422, domains="finance")["param"] == "domains"
    assert service.http.post("/generate", json={**QUESTION, "domain": "finance"}).status_code == 422


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"instruction": ""}, "instruction"),
        ({"instruction": "  "}, "instruction"),
        ({"instruction": None}, "instruction"),
        ({"instruction": "\ud83d"}, "instruction"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 8192}, "max_new_tokens"),
        ({"instruction": "word " * 9000}, "instruction"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"stop": [""]}, "stop.0"),
    ],
)
def test_questions_that_cannot_be_asked(service: Service, changes: dict[str, Any], field: str) -> None:
    body = json.dumps({**QUESTION, **changes})
    response = service.http.post("/generate", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422, response.text
    assert response.json()["error"]["param"] == field


@pytest.mark.parametrize("body", ["{", "[" * 100_000, "null"])
def test_questions_that_cannot_be_parsed(service: Service, body: str) -> None:
    response = service.http.post("/generate", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)
    assert response.json()["error"]["message"]


def test_stop_texts_end_the_answer(service: Service) -> None:
    whole = service.http.post("/generate", json=QUESTION).json()["text"]
    cut = service.http.post("/generate", json={**QUESTION, "stop": [whole.split()[1]]}).json()["text"]
    assert cut.strip() == whole.split()[0]


def test_while_the_base_loads(start: Callable[..., Service]) -> None:
    service = start(engine=FakeEngine(loaded=False))
    response = service.http.post("/generate", json=QUESTION)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")
    assert int(response.headers["retry-after"]) > 0
    ready = service.http.get("/ready")
    assert ready.status_code == 503
    assert ready.json()["checks"]["base"] == {"ok": False, "detail": "the base is still loading"}
    assert ready.json()["checks"]["database"]["ok"]
    assert service.http.get("/health").status_code == 200
    assert service.specialize().status_code == 202


def test_ready(service: Service) -> None:
    ready = service.http.get("/ready")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    assert {name: check["ok"] for name, check in ready.json()["checks"].items()} == {
        "database": True,
        "broker": True,
        "base": True,
        "disk": True,
        "drain": True,
    }


def test_an_adapter_of_another_base_is_refused(service: Service) -> None:
    service.add_expert(base="other-base")
    error = error_of(service, 409, domain="finance")
    assert error["code"] == "adapter_refused"
    assert "other-base" in error["message"]


def test_files_that_are_gone_are_our_fault(service: Service) -> None:
    """Not 404: the domain is there, and the base does not step in."""
    adapter = service.add_expert()
    artifact = service.resources.artifacts.open(adapter.artifact_digest, kind="adapter")
    (artifact.folder / "manifest.json").unlink()
    assert error_of(service, 500, domain="finance")["code"] == "internal_error"


def test_an_answer_of_the_base_is_never_passed_off(start: Callable[..., Service]) -> None:
    service = start(engine=LyingEngine())
    service.add_expert()
    assert error_of(service, 500, domain="finance")["code"] == "internal_error"
    assert service.http.post("/generate", json=QUESTION).json()["text"] == "base text"


def test_an_adapter_evicted_meanwhile_is_attached_again(start: Callable[..., Service]) -> None:
    service = start(engine=FickleEngine(times=2))
    adapter = service.add_expert()
    assert service.http.post("/generate?domain=finance", json=QUESTION).json()["adapter"] == adapter.id


def test_too_few_slots_is_said(start: Callable[..., Service]) -> None:
    service = start(engine=FickleEngine(times=99))
    service.add_expert()
    assert "SELFSPEC_ADAPTER_BYTES" in error_of(service, 503, domain="finance")["message"]


def test_a_caller_who_leaves_frees_the_model(start: Callable[..., Service]) -> None:
    engine = FakeEngine()
    service = start(engine=engine)
    body = json.dumps(QUESTION).encode()
    host, port = service.url.removeprefix("http://").split(":")
    with engine.hold():
        with socket.create_connection((host, int(port))) as connection:
            head = (
                f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
            )
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
            engine.wait_stats(waiting=1)
            assert service.http.get("/health").status_code == 200  # a held question blocks nobody else
            assert engine.stats()["cancelled"] == 0
        engine.wait_stats(cancelled=1)
    assert (engine.state().waiting, engine.stats()["requests"]) == (0, 0)


def test_domains_and_versions(service: Service) -> None:
    first, second = service.add_expert(), service.add_expert(weights=b"\2" * 32)
    service.specialize(domain="empty")
    listed = service.http.get("/domains").json()["data"]
    assert [(domain["name"], domain["champion"] is None) for domain in listed] == [("empty", True), ("finance", False)]
    domain = service.http.get("/domains/finance").json()
    assert domain == listed[1]
    assert [(version["name"], version["is_champion"]) for version in domain["versions"]] == [
        ("finance@v2", True),
        ("finance@v1", False),
    ]
    assert [row["task"] for row in domain["champion"]["metrics"]] == ["mean"]
    adapter = service.http.get(f"/adapters/{first.id}").json()
    assert adapter == service.http.get("/adapters/finance@v1").json()
    assert [row["task"] for row in adapter["metrics"]] == ["sentiment", "mean"]
    assert (adapter["id"], adapter["is_champion"], adapter["job"]) == (first.id, False, first.job_id)
    assert not domain["champion"]["attached"]
    service.http.post("/generate?domain=finance", json=QUESTION)
    assert service.http.get(f"/adapters/{second.id}").json()["attached"]
    assert domain["champion"]["id"] == second.id


def test_promote_and_roll_back(service: Service) -> None:
    """One call each; the next question meets what is served then, and the log tells who did what and why."""
    first, second = service.add_expert(), service.add_expert(weights=b"\2" * 32)

    def answers() -> str:
        return str(service.http.post("/generate?domain=finance", json=QUESTION).json()["adapter"])

    assert answers() == second.id
    domain = service.http.post("/domains/finance/promote", json={"version": 1, "reason": "it reads better"}).json()
    assert (domain["champion"]["id"], domain == service.http.get("/domains/finance").json()) == (first.id, True)
    assert answers() == first.id
    assert service.http.post("/domains/finance/rollback").json()["champion"]["name"] == "finance@v2"
    assert answers() == second.id
    assert service.http.post("/domains/finance/rollback").json()["champion"]["name"] == "finance@v1"
    refused = service.http.post("/domains/finance/rollback")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
    assert answers() == first.id
    told = service.http.get("/domains/finance/promotions", params={"limit": 3}).json()
    assert [(row["adapter_name"], row["reason"].split(":")[0], row["job"]) for row in told["data"]] == [
        ("finance@v1", "rollback", None),
        ("finance@v2", "rollback", None),
        ("finance@v1", "by hand", None),
    ]
    rest = service.http.get("/domains/finance/promotions", params={"after": told["next"]}).json()
    assert [(row["adapter"], row["job"]) for row in rest["data"]] == [
        (second.id, second.job_id),
        (first.id, first.job_id),
    ]
    assert rest["next"] is None


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("law/promote", {"version": 1}, 404, "domain"),
        ("law/rollback", None, 404, "domain"),
        ("finance/promote", {"version": 9}, 404, "version"),
        ("finance/promote", {"version": "finance@v9"}, 404, "version"),
        ("finance/promote", {"version": "old@v1"}, 409, "version"),
        ("finance/promote", {"version": "other@v1"}, 409, "adapter"),
        ("finance/promote", {}, 422, "version"),
        ("finance/promote", {"version": 1, "why": "so"}, 422, "why"),
        ("Fin/promote", {"version": 1}, 422, "domain"),
    ],
)
def test_promotions_that_are_refused(
    service: Service, path: str, body: dict[str, Any] | None, status: int, param: str
) -> None:
    adapter = service.add_expert()
    service.add_expert("other", weights=b"\2" * 32)
    service.add_expert("old", weights=b"\3" * 32, base="old-base")
    response = service.http.post(f"/domains/{path}", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (status, param), response.text
    assert service.http.get("/domains/finance").json()["champion"]["id"] == adapter.id


@pytest.mark.parametrize("version", [0, 10**9, 1.5, True, None, "", []])
def test_versions_that_cannot_be(service: Service, version: object) -> None:
    service.add_expert()
    response = service.http.post("/domains/finance/promote", json={"version": version})
    assert response.status_code == 422, response.text
    assert response.json()["error"]["param"].startswith("version")


def test_download(service: Service) -> None:
    """The archive holds the adapter's files byte for byte, and its length is told before."""
    adapter = service.add_expert(weights=b"\3" * 2000)
    response = service.http.get("/adapters/finance@v1/download")
    assert response.headers["content-type"] == "application/x-tar"
    assert int(response.headers["content-length"]) == len(response.content)
    assert response.headers["content-disposition"] == 'attachment; filename="finance-v1.tar"'
    folder = service.resources.artifacts.open(adapter.artifact_digest, kind="adapter").folder
    with tarfile.open(fileobj=io.BytesIO(response.content)) as archive:
        files = {name: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]
    assert files == {f"finance-v1/{path.name}": path.read_bytes() for path in folder.iterdir()}
    assert {"finance-v1/adapter_config.json", "finance-v1/manifest.json"} <= files.keys()
    assert service.http.get(f"/adapters/{adapter.id}/download").content == response.content
