"""Folds a chat into what experts are trained on: one instruction, and the text it is about.

* The question is the last message, which must be the user's. Its first paragraph is the instruction, what follows the
  first blank line is the input: ``"Good or bad?\\n\\nProfit of firm 3"`` is asked exactly as a seed with that
  instruction and that input was. A message without a blank line is an instruction without input.
* System texts stand before the instruction, each a paragraph of it.
* Earlier turns stand before the input, each with its speaker's name: they are text the question is about.
* ``input`` overrides the split: the whole last message is the instruction then, and ``""`` means without input.

Knows nothing of HTTP or of templates.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from app.core.errors import InvalidInput, Problem

Role = Literal["system", "user", "assistant"]

_SPEAKERS = {"user": "User", "assistant": "Assistant"}
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a chat."""

    role: Role
    text: str


def fold(turns: Sequence[Turn], *, input: str | None = None) -> tuple[str, str]:
    """The instruction and the input (may be empty). Raises InvalidInput if the last turn asks nothing."""
    _check_question(turns)
    instruction, about = split(turns[-1].text) if input is None else (turns[-1].text, input)
    system = [turn.text for turn in turns if turn.role == "system"]
    earlier = [f"{_SPEAKERS[turn.role]}: {turn.text.strip()}" for turn in turns[:-1] if turn.role in _SPEAKERS]
    return _paragraphs([*system, instruction]), _paragraphs([*earlier, about])


def split(text: str) -> tuple[str, str]:
    """The first paragraph, and what follows the blank line behind it."""
    first, *rest = _BLANK_LINE.split(text.strip(), maxsplit=1)
    return first.strip(), "".join(rest).strip()


def _paragraphs(texts: Sequence[str]) -> str:
    return "\n\n".join(text.strip() for text in texts if text.strip())


def _check_question(turns: Sequence[Turn]) -> None:
    place = f"messages.{len(turns) - 1}"
    if not turns or turns[-1].role != "user":
        last = f"is of role {turns[-1].role!r}" if turns else "is missing"
        raise InvalidInput([Problem(place if turns else "messages", f"the last message {last}; it must be the user's")])
    if not turns[-1].text.strip():
        raise InvalidInput([Problem(f"{place}.content", "is empty")])
