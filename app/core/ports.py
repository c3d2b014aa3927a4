"""What the rest of the code needs from the engine, as Protocols; ``app/engine`` has a real one and a fake one.

A stage or a service takes the narrowest port it can use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

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


class Tokens(Protocol):
    """Knows how long a text is for the base. Ready long before the weights are."""

    def count(self, text: str) -> int:
        """Number of tokens of ``text``."""

    def clip(self, text: str, num_tokens: int) -> str:
        """The beginning of ``text``, at most ``num_tokens`` tokens long; all of it if it is no longer."""


class TextGenerator(Protocol):
    """Answers prompts, each with the bare base or one attached adapter, any mix in one batch."""

    def submit(
        self, request: GenerationRequest, *, on_piece: Callable[[Piece], None] | None = None
    ) -> Future[Completion]:
        """Queue one request. The future raises NotFound (param ``adapter``) if ``request.adapter`` is not attached.

        ``on_piece`` is told each part of the answer as it is written, in order, on the engine's thread and before the
        future ends: it must be quick and must not raise. Cancelling the future, at any time, frees what the request
        holds within one step. Further: InvalidInput for a prompt that does not fit or a schema that cannot be used,
        DeadlineExceeded if nothing was written in time, Overloaded if too many wait.
        """

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        on_completion: Callable[[int, Completion], None] | None = None,
    ) -> list[Completion]:
        """Answer all, in order; ``on_completion(position, completion)`` is called as each one ends.

        It is called in the caller's thread. What it or a request raises ends the call and cancels the rest.
        """


class AdapterHost(Protocol):
    """Keeps adapters in host memory and, while they are asked for, in slots beside the base."""

    def attach(self, adapter: str, folder: Path, *, pin: bool = False) -> Attachment:
        """Load a PEFT folder under the id ``adapter``; at once if it is there already.

        A pinned adapter is not evicted. Raises AdapterRefused if it fits no module, has another shape or base, or
        changes nothing; NotReady if every byte or slot is pinned.
        """

    def use(self, adapter: str) -> bool:
        """Whether it is attached; marks it as just used, as ``attach`` does, and waits for nothing."""

    def detach(self, adapter: str) -> None:
        """Free its slot and its memory once the requests in flight are done; unknown ids are ignored."""

    def attachments(self) -> list[Attachment]:
        """What is attached now."""


class TextScorer(Protocol):
    """Says how likely texts are."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score a request, in order. Raises as ``TextGenerator.submit`` does."""


class MixtureDecoder(Protocol):
    """Answers from several prompts at once."""

    def generate_mixture(self, requests: Sequence[MixtureRequest]) -> list[MixtureCompletion]:
        """One answer a request, in order. Raises as ``TextGenerator.submit`` does."""


class AdapterTrainer(Protocol):
    """Learns one adapter (QLoRA) from rows and writes it as a PEFT folder."""

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
        """Write adapter_config.json and adapter_model.safetensors into ``folder``; repeatable for one recipe seed.

        ``checkpoints``: a folder that outlives a kill. Every ``recipe.checkpoint_steps`` steps the whole state is
        written there, and a training that finds one goes on from it, exactly: same losses, same weights. Steps that a
        checkpoint holds are told to ``on_step`` again, from what it recorded. A step is told after its checkpoint.
        """


class Engine(TextGenerator, TextScorer, MixtureDecoder, AdapterHost, AdapterTrainer, Tokens, Protocol):
    """The whole engine: one base, one owner thread."""

    @property
    def base(self) -> BaseInfo | None:
        """None until the base is loaded."""

    def wait_ready(self, timeout_seconds: float | None = None) -> BaseInfo:
        """Block until the base is loaded; raises NotReady on time-out and the load's own error if it failed."""

    def stats(self) -> Mapping[str, int | float]:
        """Counters since start, by name; ``app.core.records.COUNTERS`` says what each one counts."""

    def state(self) -> EngineState:
        """What runs, waits and is held now. Raises NotReady until the base is loaded."""

    def close(self) -> None:
        """Stop the owner thread; requests waiting or running fail with NotReady."""
