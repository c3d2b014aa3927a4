"""Spans of requests, and what is said where OpenTelemetry is missing."""

from __future__ import annotations

import sys

import pytest

from app import tracing
from app.core.errors import SetupError
from app.core.records import Completion
from app.core.request_notes import ExpertName, RequestNotes

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_request_is_one_span_under_its_callers() -> None:
    exporters = pytest.importorskip(
        "opentelemetry.sdk.trace.export.in_memory_span_exporter", reason="the extra otel is not installed"
    )
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    exporter = exporters.InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    notes = RequestNotes("r1", "POST", "/generate", 100.0, traceparent=f"00-{TRACE}-{PARENT}-01", route="/generate")
    notes.experts[ExpertName("finance", "3")] = None
    notes.add(Completion("a b", "stop", 7, 2, "x", queue_seconds=0.25, seconds=1.0, first_token_seconds=0.5))
    notes.status, notes.seconds = 503, 1.5
    tracing.span_of(provider)(notes)
    (span,) = exporter.get_finished_spans()
    assert span.name == "POST /generate"
    assert (span.start_time, span.end_time) == (100_000_000_000, 101_500_000_000)
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert not span.status.is_ok
    assert dict(span.attributes) == {
        "selfspec.request_id": "r1",
        "http.request.method": "POST",
        "url.path": "/generate",
        "http.route": "/generate",
        "http.response.status_code": 503,
        "selfspec.domain": "finance",
        "selfspec.version": "3",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 2,
        "selfspec.queue_seconds": 0.25,
        "selfspec.first_token_seconds": 0.5,
    }


def test_missing_packages_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SetupError, match=r"pip install 'selfspec\[otel\]'") as caught:
        tracing.open_provider()
    assert "\n" not in caught.value.message


def test_traces_are_asked_for_by_either_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tracing.ENDPOINT, raising=False)
    assert not tracing.is_wanted(False)
    assert tracing.is_wanted(True)
    monkeypatch.setenv(tracing.ENDPOINT, "http://127.0.0.1:4318")
    assert tracing.is_wanted(False)
