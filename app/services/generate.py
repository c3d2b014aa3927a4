"""A question to an expert or to the bare base: from what a caller asks to an answer that is believed.

Who answers is found in ``experts``, the prompt is made in ``prompting``. An answer that another adapter (or the base)
computed is an error, never an answer. Knows nothing about HTTP, nor about how a caller waits.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from app.core.errors import NotFound, SelfspecError
from app.core.ports import Engine
from app.core.records import Completion, GenerationRequest, Piece
from app.services.experts import Expert, Experts, Target
from app.services.loaded_adapters import LoadedAdapters
from app.services.prompting import Prompt, Prompter, Question
from app.services.shots import Demonstrations
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database

__all__ = ["Answer", "Asked", "Drawing", "Expert", "Generator", "OnPiece", "Prompt", "Question", "Target"]

MAX_TRIES = 3  # an adapter may lose its place between being attached and being used
_SEEDS = 2**63  # seeds are below this

OnPiece = Callable[[int, Piece], None]  # (which of the n answers, its next part)


@dataclass(frozen=True, slots=True)
class Drawing:
    """How answers are drawn. Answer i of ``n`` is drawn with ``seed + i``; at temperature 0 all are alike."""

    max_new_tokens: int | None = 256  # None: as many as the context still holds
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    logprobs: int | None = None  # see GenerationRequest
    schema: str | None = None  # JSON schema as JSON text
    ignore_end: bool = False
    timeout_seconds: float | None = None
    n: int = 1
    truncate: bool = False  # shorten a prompt that does not fit (see ``prompting``) instead of refusing it


@dataclass(frozen=True, slots=True)
class Asked:
    """A question under way: one future for each of its ``n`` answers."""

    expert: Expert
    prompt: Prompt
    futures: tuple[Future[Completion], ...]

    def cancel(self) -> None:
        """Give up every answer that is not finished; what they hold in the engine is freed within a step."""
        for future in self.futures:
            future.cancel()


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered and by whom."""

    expert: Expert
    base: str
    completion: Completion


class Generator:
    """Resolves, attaches, submits. The futures do the waiting."""

    def __init__(
        self, database: Database, artifacts: ArtifactStore, engine: Engine, *, loaded: LoadedAdapters | None = None
    ) -> None:
        self._engine = engine
        self._experts = Experts(database, artifacts, engine, loaded=loaded)
        self._prompter = Prompter(engine, Demonstrations(database, artifacts))

    def begin(
        self, prompt: Question | str, drawing: Drawing, *, target: Target, on_piece: OnPiece | None = None
    ) -> Asked:
        """Ask. A text instead of a question goes to the engine as it is, without a template.

        Raises UnknownDomain, NotFound, NotReady, AdapterRefused, and InvalidInput for a prompt that does not fit the
        base; what the engine refuses comes with the futures. ``on_piece`` is called on the engine's thread.
        """
        return self._ask(self.resolve(target), prompt, drawing, on_piece)

    def begin_at_once(
        self, prompt: Question | str, drawing: Drawing, *, target: Target, on_piece: OnPiece | None = None
    ) -> Asked | None:
        """``begin`` for an event loop. None: it may wait for a disk or a database, so it belongs in a thread."""
        if self._prompter.takes_time(prompt) or (expert := self._experts.at_hand(target)) is None:
            return None
        return self._ask(expert, prompt, drawing, on_piece)

    def _ask(self, expert: Expert, prompt: Question | str, drawing: Drawing, on_piece: OnPiece | None) -> Asked:
        made = self._prompter.make(
            prompt, expert.template, job=expert.job, max_new_tokens=drawing.max_new_tokens, truncate=drawing.truncate
        )
        futures = []
        for index in range(drawing.n):
            request = _request(made, drawing, adapter=expert.adapter, seed=(drawing.seed + index) % _SEEDS)
            futures.append(
                self._engine.submit(request, on_piece=None if on_piece is None else partial(on_piece, index))
            )
        return Asked(expert, made, tuple(futures))

    def finish(self, expert: Expert, completion: Completion) -> Answer:
        """Believe an answer only if the adapter that computed it is the one that was asked."""
        if completion.adapter != expert.adapter:
            raise SelfspecError(
                f"{completion.adapter or 'the base'} answered instead of {expert.adapter or 'the base'}"
            )
        return Answer(expert, self._engine.wait_ready(0).name, completion)

    def resolve(self, target: Target) -> Expert:
        """See ``Experts.resolve``."""
        return self._experts.resolve(target)


def was_evicted(error: BaseException) -> bool:
    """Whether a future failed only because the adapter had lost its place; attaching it again helps."""
    return isinstance(error, NotFound) and error.param == "adapter"


def _request(prompt: Prompt, drawing: Drawing, *, adapter: str | None, seed: int) -> GenerationRequest:
    return GenerationRequest(
        prompt=prompt.text,
        adapter=adapter,
        max_new_tokens=prompt.max_new_tokens,
        temperature=drawing.temperature,
        top_p=drawing.top_p,
        seed=seed,
        stop=drawing.stop,
        logprobs=drawing.logprobs,
        schema=drawing.schema,
        ignore_end=drawing.ignore_end,
        timeout_seconds=drawing.timeout_seconds,
    )
