"""The figures that requests leave for Prometheus, in a registry of one application.

An answer is observed once, when it ends, from the engine's own clock: a streamed token costs nothing here. What the
engine holds is read by ``engine_metrics`` when somebody asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics

from app.core.records import Completion
from app.core.request_notes import OTHER, ExpertName, RequestNotes

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside each figure, which nobody reads

MAX_EXPERTS = 100  # (domain, version) pairs with series of their own; the rest are "other" until a restart
_EXPERT = ("domain", "version")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)


@dataclass(frozen=True, slots=True)
class _Series:
    """One expert's, found once: looking them up by label costs more than observing."""

    queue: Histogram
    first: Histogram
    between: Histogram
    whole: Histogram
    prompt: Counter
    cached: Counter
    generated: Counter


class Metrics:
    """Counters and histograms; every method may be called from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._experts: dict[ExpertName, _Series] = {}
        self._http = self._counter("http_requests", "HTTP requests answered", "method", "route", "status")
        self._http_seconds = self._histogram(
            "http_request_seconds", "from an HTTP request's head to its answer's last byte", _SECONDS, "route"
        )
        self._answers = self._counter("answers", "generations ended, by finish reason or error", *_EXPERT, "outcome")
        self._queue = self._histogram("queue_seconds", "from submission to the first computed token", _SECONDS)
        self._first = self._histogram("time_to_first_token_seconds", "from submission to the first token", _SECONDS)
        self._between = self._histogram(
            "inter_token_seconds", "from one token to the next, the mean of an answer", _TOKEN_SECONDS
        )
        self._whole = self._histogram("answer_seconds", "from submission to the end of the answer", _SECONDS)
        self._prompt = self._counter("prompt_tokens", "tokens of the prompts answered", *_EXPERT)
        self._cached = self._counter("cached_tokens", "prompt tokens taken from a prefix computed before", *_EXPERT)
        self._generated = self._counter("generated_tokens", "tokens written", *_EXPERT)

    def label(self, name: ExpertName) -> ExpertName:
        """``name`` itself while there is room for another, then ``OTHER``."""
        if name not in self._experts:
            if len(self._experts) >= MAX_EXPERTS:
                name = OTHER
            self._experts[name] = self._series(name)
        return name

    def _series(self, name: ExpertName) -> _Series:
        return _Series(
            queue=self._queue.labels(*name),
            first=self._first.labels(*name),
            between=self._between.labels(*name),
            whole=self._whole.labels(*name),
            prompt=self._prompt.labels(*name),
            cached=self._cached.labels(*name),
            generated=self._generated.labels(*name),
        )

    def request_ended(self, notes: RequestNotes) -> None:
        """An HTTP request was answered."""
        method = notes.method if notes.method in _METHODS else "other"
        self._http.labels(method, notes.route, notes.status).inc()
        self._http_seconds.labels(notes.route).observe(notes.seconds)

    def answered(self, name: ExpertName, completion: Completion) -> None:
        """The engine gave an answer; called on its thread."""
        expert = self.label(name)
        self._answers.labels(*expert, completion.finish_reason).inc()
        series = self._experts[expert]
        whole = completion.queue_seconds + completion.seconds
        series.queue.observe(completion.queue_seconds)
        series.whole.observe(whole)
        if completion.completion_tokens > 0:
            series.first.observe(completion.first_token_seconds)
        if completion.completion_tokens > 1:
            gaps = completion.completion_tokens - 1
            series.between.observe(max(0.0, whole - completion.first_token_seconds) / gaps)
        series.prompt.inc(completion.prompt_tokens)
        series.cached.inc(completion.cached_tokens)
        series.generated.inc(completion.completion_tokens)

    def failed(self, name: ExpertName, code: str) -> None:
        """The engine gave none: ``code`` is an error's, or ``cancelled``."""
        self._answers.labels(*self.label(name), code).inc()

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"selfspec_{name}", about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"selfspec_{name}", about, labels or _EXPERT, buckets=buckets, registry=self.registry)
