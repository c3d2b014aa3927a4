"""One sequence from prompt to answer: what it was asked, what it has written, why it ended.

Knows tokens and texts, nothing of tensors, slots' contents or other sequences.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from app.core.errors import DeadlineExceeded, SelfspecError
from app.core.records import Completion, GenerationRequest, Piece, TokenLogprob
from app.engine.detokenize import TextStream
from app.engine.grammar import Constraint
from app.engine.sampling import NO_TOKEN, Sampler

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Sequence:
    """A request on its way. Its future stays pending while it is computed: its caller can cancel at any time."""

    request: GenerationRequest
    prompt_ids: list[int]
    stream: TextStream
    sampler: Sampler
    eos_ids: frozenset[int]
    constraint: Constraint | None = None
    on_piece: Callable[[Piece], None] | None = None
    future: Future[Completion] = field(default_factory=Future)
    submitted_at: float = field(default_factory=time.monotonic)
    slot: int = 0
    token_ids: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str | None = None  # a Completion's, or "error": the model computed no numbers
    cached_tokens: int = 0
    started_at: float = 0.0
    first_token_at: float = 0.0
    _told: int = 0  # tokens whose text, if any, was told
    waited_for_slot: bool = False

    @property
    def adapter(self) -> str | None:
        return self.request.adapter

    @property
    def ids(self) -> list[int]:
        """Prompt and answer so far."""
        return self.prompt_ids + self.token_ids if self.token_ids else self.prompt_ids

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt and answer so far."""
        return len(self.prompt_ids) + len(self.token_ids)

    @property
    def most_tokens(self) -> int:
        """As long as it can get."""
        return len(self.prompt_ids) + self.request.max_new_tokens

    @property
    def is_cancelled(self) -> bool:
        return self.future.cancelled()

    def is_late(self, now: float) -> bool:
        """Whether its own time has run out."""
        timeout = self.request.timeout_seconds
        return timeout is not None and now - self.submitted_at >= timeout

    def accept(self, token: int, logprob: TokenLogprob | None = None) -> None:
        """Take the next token; sets ``finish_reason`` if it ends with this one."""
        if not self.token_ids:
            self.first_token_at = time.monotonic()
        if token == NO_TOKEN:
            self.finish_reason = "error"
            return
        if token in self.eos_ids and not self.request.ignore_end:
            self.finish_reason = "stop"
            return
        self.token_ids.append(token)
        if logprob is not None:
            self.logprobs.append(logprob)
        text = self.stream.push(token)
        if self.stream.stopped:
            self.finish_reason = "stop"
        elif len(self.token_ids) >= self.request.max_new_tokens:
            self.finish_reason = "length"
        if self.constraint is not None and self.finish_reason is None:
            self.constraint.advance(token)
            if self.constraint.is_done:
                self.finish_reason = "stop"
        self._tell(text)

    def end(self, adapter: str | None) -> None:
        """Give the caller the completion. ``adapter``: whose weights the slot held."""
        if self.constraint is not None and (problem := self.constraint.error) is not None:
            self.fail(problem)
            return
        if self.finish_reason == "error":
            self.fail(SelfspecError(f"{adapter or 'the base'} computed no numbers for this prompt"))
            return
        if self.finish_reason == "timeout" and not self.token_ids:
            self.fail(DeadlineExceeded(f"nothing was written within timeout_s ({self.request.timeout_seconds} s)"))
            return
        self._tell(self.stream.finish())
        now = time.monotonic()
        with suppress(InvalidStateError):
            self.future.set_result(
                Completion(
                    text="".join(self.texts),
                    finish_reason=self.finish_reason or "length",
                    prompt_tokens=len(self.prompt_ids),
                    completion_tokens=len(self.token_ids),
                    adapter=adapter,
                    queue_seconds=self.started_at - self.submitted_at,
                    seconds=now - self.started_at,
                    first_token_seconds=(self.first_token_at or now) - self.submitted_at,
                    cached_tokens=self.cached_tokens,
                    logprobs=tuple(self.logprobs),
                )
            )

    def fail(self, error: BaseException) -> None:
        """Tell the caller why there is no answer; nothing if it has left."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)

    def _tell(self, text: str) -> None:
        self.texts.append(text)
        new = len(self.token_ids) - self._told
        if self.on_piece is None or not (text or (new and self.request.logprobs is not None)):
            return
        try:
            self.on_piece(Piece(text, new, tuple(self.logprobs[self._told :])))
        except Exception:
            log.exception("a listener failed; it is told nothing more")
            self.on_piece = None
        self._told = len(self.token_ids)
