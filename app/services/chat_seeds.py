"""Chats as examples: rows in OpenAI's training format become seeds, folded as the chat route folds what it is asked.

``{"messages": [system?, user, …, assistant]}``: the last message is the answer to learn, all before it the question
(see ``chat.fold``); earlier answers are text the question is about and are not learned themselves. A ``task`` key
names the task. Without one, rows that share an instruction (or, where the user's last message is nothing but an
instruction, a system text) are one task, named by it, and the others are the task ``chat``.

Knows nothing of files; rows that are no chats pass as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from app.core.errors import Problem
from app.services.chat import Role, Turn, fold, split
from app.services.seed_files import Row

MESSAGES, TASK = "messages", "task"
OTHER_TASK = "chat"
_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_SEED_KEYS = ("instruction", "input", "output")
_TOOLS = ("tools", "functions", "parallel_tool_calls")
_PASSED_OVER = ("name", "refusal", "annotations", "reasoning", "reasoning_content")
_CALLS = ("tool_calls", "function_call", "audio")
_MAX_NAME_CHARS = 80


def read_chats(rows: Sequence[Row], *, source: str) -> tuple[list[Row], list[Problem]]:
    """The rows with every chat as a seed's fields, each at its line; chats that cannot be used are problems instead."""
    made: list[Row] = []
    problems: list[Problem] = []
    unnamed: dict[int, str] = {}  # place among those made: the task it could be
    for row in rows:
        if not isinstance(row.value, dict) or MESSAGES not in row.value:
            made.append(row)
        elif faults := list(_faults(row.value)):
            problems += [Problem(field, reason, row.line, source) for field, reason in faults]
        else:
            turns = _turns(row.value)
            if row.value.get(TASK) is None:
                unnamed[len(made)] = _task_of(turns[:-1])
            made.append(Row(row.line, _seed(row.value, turns)))
    numbers = Counter(unnamed.values())
    for place, name in unnamed.items():
        made[place].value[TASK] = name if name and numbers[name] > 1 else OTHER_TASK
    return made, problems


def _seed(chat: dict[str, Any], turns: Sequence[Turn]) -> dict[str, Any]:
    """The fields of a seed, and whatever else stands beside the messages."""
    instruction, about = fold(turns[:-1])
    rest = {key: value for key, value in chat.items() if key not in (MESSAGES, *_TOOLS)}
    return {**rest, "instruction": instruction, "input": about, "output": turns[-1].text}


def _task_of(question: Sequence[Turn]) -> str:
    instruction, about = split(question[-1].text)
    system = next((turn.text for turn in question if turn.role == "system"), "")
    return " ".join((instruction if about else system).split())[:_MAX_NAME_CHARS]


def _turns(chat: dict[str, Any]) -> list[Turn]:
    return [Turn(_ROLES[message["role"]], _text(message["content"]) or "") for message in chat[MESSAGES]]


def _text(content: object) -> str | None:
    """A text, or parts of type text, joined; None for anything else."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [None]
    texts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in parts]
    return "\n".join(str(text) for text in texts) if all(isinstance(text, str) for text in texts) else None


def _faults(chat: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Field and reason of everything wrong with a chat."""
    for key in _SEED_KEYS:
        if key in chat:
            yield key, "stands beside messages: send a chat or a seed"
    for key in _TOOLS:
        if key != "parallel_tool_calls" and chat.get(key):
            yield key, "is not supported: experts call no tools"
    messages = chat[MESSAGES]
    if not isinstance(messages, list) or len(messages) < 2:
        yield MESSAGES, "must be a list of messages: the user's, then the assistant's answer to learn"
        return
    faults = [
        (".".join([MESSAGES, str(place), field]).rstrip("."), reason)
        for place, message in enumerate(messages)
        for field, reason in _message_faults(message)
    ]
    yield from faults or _order_faults(messages)


def _message_faults(message: object) -> Iterator[tuple[str, str]]:
    if not isinstance(message, dict):
        yield "", "must be an object with role and content"
        return
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        yield "role", f"must be {', '.join(_ROLES)}, and is {role!r}"
    if _text(message.get("content")) is None:
        yield "content", "must be a text, or a list of parts of type text"
    for key, value in message.items():
        if key in _CALLS and value:
            yield key, "is not supported: experts call no tools"
        elif key not in ("role", "content", "weight", *_PASSED_OVER, *_CALLS):
            yield str(key), "unknown key; there are: role, content"


def _order_faults(messages: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Question and answer must stand at the end, and say something."""
    end = len(messages) - 1
    for place, role in ((end, "assistant"), (end - 1, "user")):
        if messages[place]["role"] != role:
            which = "last" if place == end else "last but one"
            yield f"{MESSAGES}.{place}.role", f"the {which} message must be of role {role}"
        elif not (_text(messages[place]["content"]) or "").strip():
            yield f"{MESSAGES}.{place}.content", "is empty"
    if messages[end].get("weight") == 0:
        yield f"{MESSAGES}.{end}.weight", "is 0: the last message is what is learned"
