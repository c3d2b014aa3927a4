"""Makes the prompt of a question: demonstrations, template, and what is left out when it does not fit the base.

Demonstrations stand in front, as in an evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.core.errors import InvalidInput, Problem
from app.core.ports import Engine
from app.core.records import Seed
from app.pipeline.template import Template
from app.services.shots import Demonstrations

_LONG = 4_000  # characters: reading a prompt longer than this may take a millisecond
_SPARE_TOKENS = 8  # what a tokenizer may add by itself
_ANSWER_TOKENS = 256  # left for an answer of no set length when a prompt is shortened


@dataclass(frozen=True, slots=True)
class Question:
    """What a caller asks; ``shots``: how many seeds of the expert's job are shown with their answers first."""

    instruction: str
    input: str = ""
    shots: int = 0


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine reads. ``cut_tokens``: of the input, left out to fit."""

    text: str
    max_new_tokens: int
    shots: int = 0
    cut_tokens: int = 0


class Prompter:
    """Renders, counts, shortens."""

    def __init__(self, engine: Engine, demonstrations: Demonstrations) -> None:
        self._engine, self._demonstrations = engine, demonstrations

    def takes_time(self, prompt: Question | str) -> bool:
        """Whether ``make`` takes more than a moment: a long text, or demonstrations, which a disk may hold."""
        if isinstance(prompt, str):
            return len(prompt) > _LONG
        return prompt.shots > 0 or len(prompt.instruction) + len(prompt.input) > _LONG

    def make(
        self,
        prompt: Question | str,
        template: Template,
        *,
        job: str | None,
        max_new_tokens: int | None,
        truncate: bool,
    ) -> Prompt:
        """Raises InvalidInput, with both counts, for what does not fit (``truncate``: even when shortened)."""
        draft = self._draft(prompt, template, job)
        least = max_new_tokens if max_new_tokens is not None else 1
        if truncate:
            least = least if max_new_tokens is not None else min(_ANSWER_TOKENS, self._context // 2)
            draft = self._shorten(draft, self._context - least)
        text = draft.text()
        if max_new_tokens is None:
            used = self._check(text, draft, 1)
            least = self._context - used
        elif len(text.encode("utf-8", "replace")) + _SPARE_TOKENS + least > self._context:
            self._check(text, draft, least)  # no token is shorter than a byte: anything shorter fits uncounted
        return Prompt(text, least, len(draft.shots), draft.cut_tokens)

    @property
    def _context(self) -> int:
        return self._engine.wait_ready(0).context_tokens

    def _draft(self, prompt: Question | str, template: Template, job: str | None) -> _Draft:
        if isinstance(prompt, str):
            return _Draft(None, "", prompt)
        if not prompt.shots:
            return _Draft(template, prompt.instruction, prompt.input)
        if job is None:
            raise InvalidInput([Problem("shots", "the bare base has no seeds to show: name a domain or an adapter")])
        shots = self._demonstrations.choose(job, prompt.shots)
        return _Draft(template, prompt.instruction, prompt.input, shots)

    def _check(self, text: str, draft: _Draft, max_new_tokens: int) -> int:
        """The prompt's length, if it fits."""
        used, most = self._engine.count(text), self._context
        if used + max_new_tokens > most:
            reason = (
                f"{used:,} tokens of prompt and {max_new_tokens:,} new ones do not fit the base, which reads {most:,}"
            )
            field = draft.field if used >= most else "max_new_tokens"
            raise InvalidInput([Problem(field, reason)])
        return used

    def _shorten(self, draft: _Draft, room: int) -> _Draft:
        """Fewer demonstrations first, the last one first; then the end of the input. Never the template."""
        while draft.shots and self._engine.count(draft.text()) > room:
            draft = replace(draft, shots=draft.shots[:-1])
        num_input = keep = self._engine.count(draft.input)
        whole = draft.input
        while keep > 0 and (excess := self._engine.count(draft.text()) - room) > 0:
            keep = max(0, keep - excess)
            draft = replace(draft, input=self._engine.clip(whole, keep), cut_tokens=num_input - keep)
        return draft


@dataclass(frozen=True, slots=True)
class _Draft:
    """A prompt's parts; ``template`` None: the input is the prompt as it stands."""

    template: Template | None
    instruction: str
    input: str
    shots: Sequence[Seed] = ()
    cut_tokens: int = 0

    @property
    def field(self) -> str:
        """What of it can be made shorter."""
        if self.template is None:
            return "prompt"
        return "shots" if self.shots else "instruction"

    def text(self) -> str:
        if self.template is None:
            return self.input
        return self.template.render(self.instruction, self.input, shown=self.shots)
