"""An engine whose answers are counted: for metrics, and for the notes of the HTTP request they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from app.core.errors import SelfspecError
from app.core.ports import Engine
from app.core.recipe import Recipe
from app.core.records import (
    PLAIN,
    Attachment,
    BaseInfo,
    Completion,
    EngineState,
    GenerationRequest,
    MixtureCompletion,
    MixtureRequest,
    Piece,
    Score,
    ScoreRequest,
    TrainingPlan,
    TrainingReport,
    TrainingRow,
    TrainingStep,
)
from app.core.request_notes import CURRENT, ExpertName, RequestNotes
from app.services.expert_names import ExpertNames
from app.services.metrics import Metrics


class MeteredEngine:
    """Implements ``app.core.ports.Engine`` by another engine; it adds nothing to a token and little to an answer."""

    def __init__(self, engine: Engine, *, metrics: Metrics, names: ExpertNames) -> None:
        self._engine, self._metrics, self._names = engine, metrics, names

    def submit(
        self, request: GenerationRequest, *, on_piece: Callable[[Piece], None] | None = None
    ) -> Future[Completion]:
        name, notes = self._note(request)
        future = self._engine.submit(request, on_piece=on_piece)
        future.add_done_callback(lambda done: self._ended(done, name, notes))
        return future

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        on_completion: Callable[[int, Completion], None] | None = None,
    ) -> list[Completion]:
        noted = [self._note(request) for request in requests]

        def ended(position: int, completion: Completion) -> None:
            self._answered(completion, *noted[position])
            if on_completion is not None:
                on_completion(position, completion)

        return self._engine.generate(requests, on_completion=ended)

    def _note(self, request: GenerationRequest) -> tuple[ExpertName, RequestNotes | None]:
        name, notes = self._names.of(request.adapter), CURRENT.get()
        if notes is not None:
            notes.experts[name] = None
        return name, notes

    def _ended(self, future: Future[Completion], name: ExpertName, notes: RequestNotes | None) -> None:
        if future.cancelled():
            self._metrics.failed(name, "cancelled")
        elif (error := future.exception()) is not None:
            self._metrics.failed(name, error.code if isinstance(error, SelfspecError) else SelfspecError.code)
        else:
            self._answered(future.result(), name, notes)

    def _answered(self, completion: Completion, name: ExpertName, notes: RequestNotes | None) -> None:
        self._metrics.answered(name, completion)
        if notes is not None:
            notes.add(completion)

    # Everything else is the engine's own.

    @property
    def base(self) -> BaseInfo | None:
        return self._engine.base

    def wait_ready(self, timeout_seconds: float | None = None) -> BaseInfo:
        return self._engine.wait_ready(timeout_seconds)

    def count(self, text: str) -> int:
        return self._engine.count(text)

    def clip(self, text: str, num_tokens: int) -> str:
        return self._engine.clip(text, num_tokens)

    def attach(self, adapter: str, folder: Path, *, pin: bool = False) -> Attachment:
        return self._engine.attach(adapter, folder, pin=pin)

    def use(self, adapter: str) -> bool:
        return self._engine.use(adapter)

    def detach(self, adapter: str) -> None:
        self._engine.detach(adapter)

    def attachments(self) -> list[Attachment]:
        return self._engine.attachments()

    def train(
        self,
        rows: Iterable[TrainingRow],
        *,
        recipe: Recipe,
        folder: Path,
        on_step: Callable[[TrainingStep], None],
        plan: TrainingPlan = PLAIN,
        checkpoints: Path | None = None,
    ) -> TrainingReport:
        return self._engine.train(
            rows, recipe=recipe, folder=folder, on_step=on_step, plan=plan, checkpoints=checkpoints
        )

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return self._engine.score(requests)

    def generate_mixture(self, requests: Sequence[MixtureRequest]) -> list[MixtureCompletion]:
        return self._engine.generate_mixture(requests)

    def stats(self) -> Mapping[str, int | float]:
        return self._engine.stats()

    def state(self) -> EngineState:
        return self._engine.state()

    def close(self) -> None:
        self._engine.close()
