"""Each request has an id and leaves one line in the log and, if asked for, one span."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.engine.fake import FakeEngine
from app.logs import JsonFormatter, TextFormatter
from tests.api.live import Service, serve

QUESTION = {"instruction": "What is it?", "max_new_tokens": 12}


def access_lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "selfspec.access"]


def test_an_id_is_kept_or_made(service: Service) -> None:
    assert service.http.get("/health", headers={"x-request-id": "web-7:a.b_c"}).headers["x-request-id"] == "web-7:a.b_c"
    made = {service.http.get("/health").headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2
    for unusable in ("", "two words", "x" * 129, "<script>"):
        answer = service.http.get("/nowhere", headers={"x-request-id": unusable})
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"]), unusable


class BrokenEngine(FakeEngine):
    """Has a bug."""

    def count(self, text: str) -> int:
        raise ZeroDivisionError("a bug")


def test_a_bug_is_answered_with_the_id_its_traceback_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The framework answers bugs outside of all middleware; the id must be there nevertheless."""
    caplog.set_level(logging.INFO)
    with serve(tmp_path, engine=BrokenEngine()) as service:
        answer = service.http.post("/generate", json=QUESTION, headers={"x-request-id": "bug-1"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "bug-1")
    assert access_lines(caplog)[0].fields["status"] == 500  # type: ignore[attr-defined]


def test_the_line_of_a_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serve(tmp_path) as service:
        service.add_expert()
        caplog.clear()
        headers = {"x-request-id": "one"}
        usage = service.http.post("/generate?domain=finance", json=QUESTION, headers=headers).json()["usage"]
        service.http.get("/jobs/a%0Ab")
        service.http.get("/health")
    asked, missed = access_lines(caplog)
    line = json.loads(JsonFormatter().format(asked))
    assert {key: line[key] for key in ("level", "logger", "request_id", "method", "path", "status")} == {
        "level": "info",
        "logger": "selfspec.access",
        "request_id": "one",
        "method": "POST",
        "path": "/generate",
        "status": 200,
    }
    assert (line["domain"], line["version"]) == ("finance", "1")
    assert (line["prompt_tokens"], line["generated_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert line["seconds"] > 0
    tokens = f"{usage['prompt_tokens']}+{usage['completion_tokens']} tokens"
    assert TextFormatter().format(asked).endswith(f" s finance@v1 {tokens}")
    assert "\n" not in TextFormatter().format(missed)
    assert "domain" not in json.loads(JsonFormatter().format(missed))


class Collector(BaseHTTPRequestHandler):
    """An OpenTelemetry collector that keeps what it is sent."""

    received: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        self.received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """The address of a collector that listens, and what it received."""
    received: list[tuple[str, bytes]] = []
    with HTTPServer(("127.0.0.1", 0), type("Kept", (Collector,), {"received": received})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()
        thread.join()


def test_spans_are_sent_where_opentelemetry_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collector: tuple[str, list[tuple[str, bytes]]]
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra otel is not installed")
    endpoint, received = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    with serve(tmp_path) as service:
        service.add_expert()
        service.http.post("/generate?domain=finance", json=QUESTION)
    assert {path for path, _ in received} == {"/v1/traces"}
    sent = b"".join(body for _, body in received)
    assert b"POST /generate" in sent
    assert b"finance" in sent


def test_nothing_is_sent_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collector: tuple[str, list[tuple[str, bytes]]]
) -> None:
    endpoint, received = collector
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint)
    with serve(tmp_path) as service:
        service.http.post("/generate", json=QUESTION)
    assert received == []
