"""Puts together all that watches one application: metrics, access lines, traces, the warm-up and the drain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI

from app import logs, tracing
from app.api import observe
from app.api.drain_gate import DrainGate
from app.bootstrap import Resources
from app.core.ports import Engine
from app.services.drain import Drain
from app.services.engine_metrics import EngineCollector
from app.services.engine_view import EngineViewer
from app.services.expert_names import ExpertNames
from app.services.metered_engine import MeteredEngine
from app.services.metrics import Metrics
from app.services.readiness import Readiness
from app.services.warmup import WarmUp
from app.settings import Settings


class Watch:
    """Stands around ``app`` from the moment it is made, and around the engine while it is open."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        """Raises SetupError if traces are asked for and their packages are missing."""
        self._app, self._settings = app, settings
        self._metrics, self._drain = Metrics(), Drain()
        self._warm_up: WarmUp | None = None
        self._traces = tracing.open_provider() if tracing.is_wanted(settings.traces) else None
        app.state.metrics, app.state.drain = self._metrics, self._drain
        app.add_middleware(DrainGate, drain=self._drain)
        spans = () if self._traces is None else (tracing.span_of(self._traces),)
        observe.install(app, (self._metrics.request_ended, logs.log_request, *spans))

    @contextmanager
    def opened(self, resources: Resources) -> Iterator[Engine]:
        """The engine to serve with, whose answers are counted."""
        engine, names = resources.engine, ExpertNames(resources.database)
        self._warm_up = WarmUp(engine, resources.database, resources.artifacts) if self._settings.warm_up else None
        self._app.state.engine_viewer = EngineViewer(engine, names=names, warm_up=self._warm_up)
        self._drain.give_up = engine.close
        collector = EngineCollector(engine, metrics=self._metrics, names=names)
        self._metrics.registry.register(collector)
        if self._warm_up is not None:
            self._warm_up.start()
        try:
            yield MeteredEngine(engine, metrics=self._metrics, names=names)
        finally:
            if self._warm_up is not None:
                self._warm_up.stop()
            self._metrics.registry.unregister(collector)
            if self._traces is not None:
                self._traces.shutdown()

    def report_to(self, readiness: Readiness) -> None:
        """Let /ready ask what is known here."""
        readiness.add("drain", self._drain.check)
        if self._warm_up is not None:
            readiness.add("warm_up", self._warm_up.check)
