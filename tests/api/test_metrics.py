"""What Prometheus reads: figures of what was asked, by expert, and of what the engine holds now."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from app.core.request_notes import OTHER, ExpertName
from app.engine.fake import FakeEngine
from app.services.metrics import MAX_EXPERTS, Metrics
from tests.api.live import Service, serve
from tests.metrics_table import metrics_table, split_page

QUESTION = {"instruction": "What is it?", "input": "A thing.", "max_new_tokens": 12}


def read(service: Service) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Every sample by its name and its sorted labels."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(service.http.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def labels(**given: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(given.items()))


FINANCE, BASE = {"domain": "finance", "version": "1"}, {"domain": "base", "version": "base"}


def test_answers_are_counted_by_who_gave_them(service: Service) -> None:
    service.add_expert()
    answers = [service.http.post("/generate?domain=finance", json=QUESTION).json() for _ in range(2)]
    service.http.post("/generate", json=QUESTION)
    metrics = read(service)
    assert metrics["selfspec_answers_total"] == {
        labels(**FINANCE, outcome=answers[0]["finish_reason"]): 2,
        labels(**BASE, outcome="stop"): 1,
    }
    usage = answers[0]["usage"]
    assert metrics["selfspec_generated_tokens_total"][labels(**FINANCE)] == 2 * usage["completion_tokens"]
    assert metrics["selfspec_prompt_tokens_total"][labels(**FINANCE)] == 2 * usage["prompt_tokens"]
    for name in ("queue", "time_to_first_token", "inter_token", "answer"):
        assert metrics[f"selfspec_{name}_seconds_count"][labels(**FINANCE)] == 2, name
    assert metrics["selfspec_engine_requests_total"] == {(): 3}
    assert metrics["selfspec_batch_size_count"][()] == 3
    assert metrics["selfspec_batch_size_bucket"][labels(le="1")] == 3
    assert metrics["selfspec_adapter_rows_total"] == {labels(slots="1"): 2}


def test_requests_are_counted_by_route_not_by_path(service: Service) -> None:
    for path in ("/jobs/a", "/jobs/b", "/nowhere/1", "/nowhere/2"):
        assert service.http.get(path).status_code == 404
    service.http.request("PROPFIND", "/health")
    counted = read(service)["selfspec_http_requests_total"]
    assert counted[labels(method="GET", route="/jobs/{job_id}", status="404")] == 2
    assert counted[labels(method="GET", route="unmatched", status="404")] == 2
    assert [value for key, value in counted.items() if ("method", "other") in key] == [1]


def test_what_runs_and_waits_is_told_by_expert(start: Callable[..., Service]) -> None:
    engine = FakeEngine(slots=4)
    service = start(engine=engine)
    service.add_expert()
    with engine.hold():
        asking = threading.Thread(
            target=service.http.post, args=("/generate?domain=finance",), kwargs={"json": QUESTION}
        )
        asking.start()
        engine.wait_stats(waiting=1)
        metrics = read(service)
    asking.join()
    assert metrics["selfspec_waiting"] == {labels(**FINANCE): 1, labels(**BASE): 0}
    assert metrics["selfspec_slots"] == {(): 4}
    after = read(service)
    assert after["selfspec_waiting"][labels(**FINANCE)] == 0
    assert after["selfspec_slots_used"] == {(): 1}
    assert after["selfspec_adapter_bytes"][labels(**FINANCE, tier="device")] > 0
    assert after["selfspec_adapter_loads_total"] == {labels(tier="host"): 1, labels(tier="device"): 1}


def test_evictions_are_told_by_tier(start: Callable[..., Service]) -> None:
    service = start(engine=FakeEngine(slots=1))
    for number, domain in enumerate(["finance", "law"]):
        service.add_expert(domain, weights=bytes([number]) * 32)
        assert service.http.post(f"/generate?domain={domain}", json=QUESTION).status_code == 200
    metrics = read(service)
    assert metrics["selfspec_adapter_evictions_total"][labels(tier="device")] == 1
    assert metrics["selfspec_adapters"] == {labels(tier="device"): 1, labels(tier="host"): 1}


def test_failures_and_callers_who_leave_are_outcomes(start: Callable[..., Service]) -> None:
    engine = FakeEngine(max_waiting=1)
    service = start(engine=engine)
    body = json.dumps(QUESTION)
    head = (
        f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with engine.hold():
        with socket.create_connection((httpx.URL(service.url).host, httpx.URL(service.url).port)) as connection:
            connection.sendall((head + body).encode())
            engine.wait_stats(waiting=1)
            assert service.http.post("/generate", json=QUESTION).status_code == 429
        engine.wait_stats(cancelled=1)
    outcomes = {dict(key)["outcome"] for key in read(service)["selfspec_answers_total"]}
    assert outcomes == {"cancelled", "overloaded"}


def test_while_the_base_loads(start: Callable[..., Service]) -> None:
    service = start(engine=FakeEngine(loaded=False))
    assert read(service)["selfspec_ready"] == {(): 0}
    assert service.http.get("/engine").status_code == 503


def test_every_application_has_figures_of_its_own(tmp_path: Path) -> None:
    with serve(tmp_path / "one") as one, serve(tmp_path / "two") as two:
        one.http.post("/generate", json=QUESTION)
        assert "selfspec_answers_total" in read(one)
        assert "selfspec_answers_total" not in read(two)


def test_openmetrics_for_who_asks_for_it(service: Service) -> None:
    answer = service.http.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_experts_without_end_share_one_label() -> None:
    metrics = Metrics()
    names = [ExpertName(f"domain{number}", "1") for number in range(MAX_EXPERTS + 50)]
    for name in names * 2:
        metrics.failed(name, "cancelled")
    (family,) = [family for family in metrics.registry.collect() if family.name == "selfspec_answers"]
    counted = {(sample.labels["domain"], sample.labels["version"]): sample.value for sample in family.samples}
    assert len(counted) == MAX_EXPERTS + 1
    assert counted[OTHER] == 100
    assert counted[names[0]] == 2


def test_the_page_lists_the_metrics() -> None:
    """If this fails: python -m tests.metrics_table"""
    _, table, _ = split_page()
    assert table == metrics_table()
