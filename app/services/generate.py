"""A question to an expert or to the bare base.

Which adapter answers for a domain is read from the database at each request, so that every process serves a new
champion at once. An answer that another adapter (or the base) computed is an error, never an answer.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import AdapterRefused, InvalidInput, NotFound, Problem, SelfspecError
from app.core.ports import Engine
from app.core.records import BaseInfo, Completion, GenerationRequest
from app.models import Adapter
from app.pipeline.template import ALPACA, Template
from app.services.adapters import KIND, read_template
from app.services.domain_names import check_name
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database

MAX_TRIES = 3  # an adapter may lose its slot between being attached and being used


@dataclass(frozen=True, slots=True)
class Question:
    """What a caller asks, and how the answer is to be drawn."""

    instruction: str
    input: str = ""
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Expert:
    """Who will answer: an adapter that is attached, or (all None) the bare base. ``template`` is its own."""

    domain: str | None
    adapter: str | None
    name: str | None
    template: Template


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered and by whom."""

    expert: Expert
    base: str
    completion: Completion


class Generator:
    """Resolves, attaches, submits. ``begin`` blocks and belongs in a thread; the future does the waiting."""

    def __init__(self, database: Database, artifacts: ArtifactStore, engine: Engine) -> None:
        self._database, self._artifacts, self._engine = database, artifacts, engine

    def begin(self, question: Question, *, domain: str | None) -> tuple[Expert, Future[Completion]]:
        """Raises UnknownDomain, NotReady, AdapterRefused, and InvalidInput for a prompt that does not fit the base."""
        expert = self.resolve(domain)
        prompt = expert.template.render(question.instruction, question.input)
        self._check_length(prompt, question.max_new_tokens)
        request = GenerationRequest(
            prompt=prompt,
            adapter=expert.adapter,
            max_new_tokens=question.max_new_tokens,
            temperature=question.temperature,
            top_p=question.top_p,
            seed=question.seed,
            stop=question.stop,
        )
        return expert, self._engine.submit(request)

    def finish(self, expert: Expert, completion: Completion) -> Answer:
        """Believe an answer only if the adapter that computed it is the one that was asked."""
        if completion.adapter != expert.adapter:
            raise SelfspecError(
                f"{completion.adapter or 'the base'} answered instead of {expert.adapter or 'the base'}"
            )
        return Answer(expert, self._ready_base().name, completion)

    def resolve(self, domain: str | None) -> Expert:
        """The domain's champion, attached; None: the bare base."""
        if domain is None:
            self._ready_base()
            return Expert(None, None, None, ALPACA)
        with self._database.session(read_only=True) as uow:
            adapter = uow.domains.champion(check_name(domain))
        base = self._ready_base()
        if adapter.base_fingerprint != base.fingerprint:
            raise AdapterRefused(
                f"{adapter.name} was made on {adapter.base} ({adapter.base_fingerprint}), "
                f"and {base.name} ({base.fingerprint}) is loaded",
                param="domain",
            )
        self._engine.attach(adapter.id, self._folder(adapter))
        return Expert(domain, adapter.id, adapter.name, read_template(adapter.template))

    def _folder(self, adapter: Adapter) -> Path:
        try:
            return self._artifacts.open(adapter.artifact_digest, kind=KIND).folder
        except NotFound as error:
            raise SelfspecError(f"the files of {adapter.name} are not in the artifact store") from error

    def _ready_base(self) -> BaseInfo:
        """Raises NotReady while the base loads, or says why it could not be loaded."""
        return self._engine.wait_ready(0)

    def _check_length(self, prompt: str, max_new_tokens: int) -> None:
        most = self._ready_base().context_tokens
        used = self._engine.count(prompt)
        if used + max_new_tokens > most:
            reason = (
                f"{used:,} tokens of prompt and {max_new_tokens:,} new ones do not fit the base, which reads {most:,}"
            )
            raise InvalidInput([Problem("instruction" if used >= most else "max_new_tokens", reason)])


def was_evicted(error: BaseException) -> bool:
    """Whether a future failed only because the adapter had lost its slot; attaching it again helps."""
    return isinstance(error, NotFound) and error.param == "adapter"
