"""What the rest of the code needs from the engine, as Protocols; ``app/engine`` has a real one and a fake one.

A stage or a service takes the narrowest port it can use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from app.core.recipe import Recipe
from app.core.records import (
    Attachment,
    BaseInfo,
    Completion,
    GenerationRequest,
    TrainingReport,
    TrainingRow,
    TrainingStep,
)


class Tokens(Protocol):
    """Knows how long a text is for the base. Ready long before the weights are."""

    def count(self, text: str) -> int:
        """Number of tokens of ``text``."""


class TextGenerator(Protocol):
    """Answers prompts, each with the bare base or one attached adapter, any mix in one batch."""

    def submit(self, request: GenerationRequest) -> Future[Completion]:
        """Queue one request. The future raises NotFound if ``request.adapter`` is not attached."""

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
    """Keeps adapters in slots beside the base."""

    def attach(self, adapter: str, folder: Path) -> Attachment:
        """Load a PEFT folder under the id ``adapter``; at once if it is there already.

        Raises AdapterRefused if it fits no module, has another shape or base, or changes nothing.
        """

    def detach(self, adapter: str) -> None:
        """Free the slot; unknown ids are ignored."""

    def attachments(self) -> list[Attachment]:
        """What is attached now."""


class AdapterTrainer(Protocol):
    """Learns one adapter (QLoRA) from rows and writes it as a PEFT folder."""

    def train(
        self,
        rows: Sequence[TrainingRow],
        *,
        recipe: Recipe,
        folder: Path,
        on_step: Callable[[TrainingStep], None],
    ) -> TrainingReport:
        """Write adapter_config.json and adapter_model.safetensors into ``folder``; repeatable for one recipe seed."""


class Engine(TextGenerator, AdapterHost, AdapterTrainer, Tokens, Protocol):
    """The whole engine: one base, one owner thread."""

    @property
    def base(self) -> BaseInfo | None:
        """None until the base is loaded."""

    def wait_ready(self, timeout_seconds: float | None = None) -> BaseInfo:
        """Block until the base is loaded; raises NotReady on time-out and the load's own error if it failed."""

    def stats(self) -> Mapping[str, int | float]:
        """Counters since start: requests, tokens, batches, attachments, evictions."""

    def close(self) -> None:
        """Stop the owner thread; requests still waiting fail with NotReady."""
