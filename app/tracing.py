"""OpenTelemetry traces, off unless they are asked for: one span for each HTTP request, made when it has ended.

Where spans go is said by OpenTelemetry's own variables (``OTEL_EXPORTER_OTLP_ENDPOINT`` …). Its packages are the extra
``otel``; nothing else imports them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.core.errors import SetupError
from app.core.request_notes import RequestNotes

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_NANOSECONDS = 1e9


def is_wanted(traces: bool) -> bool:
    """Whether this process makes traces: ``traces`` says so, or OpenTelemetry's endpoint is set."""
    return traces or bool(os.environ.get(ENDPOINT))


def open_provider() -> TracerProvider:
    """What exports spans over OTLP; shut it down at the end. Raises SetupError where its packages are missing."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SetupError(f"traces need OpenTelemetry: pip install 'selfspec[otel]' (missing: {error.name})") from error
    name = os.environ.get("OTEL_SERVICE_NAME", "selfspec")
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def span_of(provider: TracerProvider) -> Callable[[RequestNotes], None]:
    """An observer of requests that makes their spans, as children of the caller's where it sent a ``traceparent``."""
    from opentelemetry.trace import SpanKind, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    tracer, propagator = provider.get_tracer("selfspec"), TraceContextTextMapPropagator()

    def make(notes: RequestNotes) -> None:
        carrier = {"traceparent": notes.traceparent} if notes.traceparent else {}
        span = tracer.start_span(
            f"{notes.method} {notes.route}",
            context=propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes=_attributes(notes),
            start_time=int(notes.started_at * _NANOSECONDS),
        )
        if notes.status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end(int((notes.started_at + notes.seconds) * _NANOSECONDS))

    return make


_STANDARD = {  # OpenTelemetry's names for what it has names for; the rest goes by ours
    "method": "http.request.method",
    "path": "url.path",
    "route": "http.route",
    "status": "http.response.status_code",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "generated_tokens": "gen_ai.usage.output_tokens",
}


def _attributes(notes: RequestNotes) -> dict[str, str | int | float]:
    fields = {name: value for name, value in notes.fields().items() if name != "seconds"}
    return {_STANDARD.get(name, f"selfspec.{name}"): value for name, value in fields.items()}
