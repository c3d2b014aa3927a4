"""Chats in OpenAI's training format, read as seeds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.core.records import Seed
from app.services.chat import Turn, fold
from app.services.chat_seeds import OTHER_TASK
from app.services.seed_files import Upload
from app.services.seeds import Limits, SeedSet, read_seeds

LIMITS = Limits(max_seeds=100, max_field_chars=1000, max_lora_rank=64)


def message(role: object, content: object, **others: object) -> dict[str, Any]:
    return {"role": role, "content": content, **others}


def chat(*contents: str, system: str = "", **others: object) -> dict[str, Any]:
    """Contents of user and assistant in turn."""
    roles = ["user", "assistant"] * len(contents)
    turns = [message(role, content) for role, content in zip(roles, contents, strict=False)]
    return {"messages": [*([message("system", system)] if system else []), *turns], **others}


def read(*rows: object) -> SeedSet:
    return read_seeds(list(rows), source="seeds", limits=LIMITS)


def test_a_chat_is_learned_as_it_will_be_asked() -> None:
    """What the chat route makes of the same messages is what the expert has learned."""
    [seed] = read(chat("Hello", "Hi", "Good or bad?\n\nProfit", "good", system="Be brief.", task="tone")).records()
    asked = [Turn("system", "Be brief."), Turn("user", "Hello"), Turn("assistant", "Hi")]
    assert (seed.instruction, seed.input) == fold([*asked, Turn("user", "Good or bad?\n\nProfit")])
    assert (seed.task, seed.output) == ("tone", "good")


def test_parts_developer_and_what_clients_add() -> None:
    parts = [{"type": "text", "text": "Good or bad?"}, {"type": "text", "text": "\nProfit"}]
    messages = [
        message("developer", "Be brief."),
        message("user", parts, name="ann"),
        message("assistant", "good", weight=1, refusal=None, tool_calls=[]),
    ]
    found = read({"messages": messages, "tools": [], "parallel_tool_calls": False, "references": ["fine"], "id": 7})
    assert found.problems == ()
    assert found.records() == [Seed("chat", "Be brief.\n\nGood or bad?", "Profit", "good", ("fine",))]


def test_tasks_of_chats_without_one() -> None:
    """What rows have in common names their task: the instruction, else the system text; loners go together."""
    found = read(
        chat("Good or bad?\n\nProfit", "good", system="An analyst."),
        chat("Good or bad?\n\nLoss", "bad", system="An analyst."),
        chat("Profit", "good", system="Say good\nor bad."),
        chat("Loss", "bad", system="Say good\nor bad."),
        chat("Who is it?\n\nA text", "Ann"),
        chat("What is a bond?", "A debt."),
        chat("What is a share?", "A part.", task="terms"),
    )
    tasks = [seed.task for seed in found.records()]
    assert tasks == [*["Good or bad?"] * 2, *["Say good or bad."] * 2, OTHER_TASK, OTHER_TASK, "terms"]


def test_chats_and_seeds_in_one_file_keep_their_lines() -> None:
    seed = {"task": "t", "instruction": "i", "input": "", "output": "o"}
    rows = [seed, "", chat("Good?", "yes"), chat("Good?", " ")]
    data = "\n".join(json.dumps(row) if row else "" for row in rows).encode()
    found = read_seeds(Upload(data, "mixed.jsonl"), source="file", limits=LIMITS)
    assert [placed.line for placed in found.seeds] == [1, 3]
    assert [str(problem) for problem in found.problems] == ["file, line 4, messages.1.content: is empty"]


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ({"messages": "hello"}, "messages", "must be a list of messages"),
        ({"messages": [message("user", "Hello")]}, "messages", "must be a list of messages"),
        ({"messages": ["a", "b"]}, "messages.0", "must be an object"),
        (chat("Hello", "Hi", "And?"), "messages.2.role", "must be of role assistant"),
        ({"messages": [message("system", "x"), message("assistant", "y")]}, "messages.0.role", "must be of role user"),
        (chat("", "Hi"), "messages.0.content", "is empty"),
        ({"messages": [message("tool", "x"), message("assistant", "y")]}, "messages.0.role", "'tool'"),
        ({"messages": [message(["user"], "x"), message("assistant", "y")]}, "messages.0.role", "must be system"),
        (
            {"messages": [message("user", "x"), message("assistant", None, tool_calls=[{}])]},
            "messages.1.content",
            "must be a text",
        ),
        (
            {"messages": [message("user", "x"), message("assistant", "y", tool_calls=[{}])]},
            "messages.1.tool_calls",
            "call no tools",
        ),
        (
            {"messages": [message("user", [{"type": "image_url"}]), message("assistant", "y")]},
            "messages.0.content",
            "parts of type text",
        ),
        (
            {"messages": [message("user", "x"), message("assistant", "y", weight=0)]},
            "messages.1.weight",
            "is what is learned",
        ),
        ({"messages": [message("user", "x", mood=1), message("assistant", "y")]}, "messages.0.mood", "unknown key"),
        ({**chat("x", "y"), "tools": [{}]}, "tools", "call no tools"),
        ({**chat("x", "y"), "output": "z"}, "output", "stands beside messages"),
        ({**chat("x", "y"), "task": 3}, "task", "must be a text"),
        ({**chat("x", "y"), "answer": "z"}, "answer", "unknown key"),
        ({**chat("x" * 1001, "y")}, "instruction", "at most 1,000"),
    ],
)
def test_chats_that_cannot_be_learned(row: object, field: str, reason: str) -> None:
    [problem, *_] = read({"task": "t", "instruction": "i", "output": "o"}, row).problems
    assert (problem.line, problem.field) == (2, field)
    assert reason in problem.reason
