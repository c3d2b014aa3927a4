"""Seeds, recipes and replies that the pipeline tests start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from app.core.presets import make_recipe
from app.core.recipe import Recipe
from app.core.records import Candidate, Completion, GenerationRequest, Judged, Line, Reply, Seed
from app.engine.fake import FakeEngine


class About(TypedDict):
    """What every prompt of a domain is made with."""

    domain: str
    description: str


ABOUT: About = {"domain": "finance", "description": "reports of listed firms"}


def seed(number: int = 0, *, task: str = "tone", input: str | None = None, output: str = "good") -> Seed:
    """A seed that differs from others in its input; ``input`` "" is one that differs in its instruction."""
    if input == "":
        return Seed(task, f"What does the figure number {number} of a report tell?", "", output)
    return Seed(task, f"Is the {task} good or bad?", input or f"Firm {number} sold {number}00 ships in May", output)


def seeds(number: int, *tasks: str) -> list[Seed]:
    """So many seeds of each task."""
    return [seed(index, task=task) for task in tasks or ("tone",) for index in range(number)]


def recipe(**changes: Any) -> Recipe:
    """The paper's recipe with changes."""
    return make_recipe(changes)


def reply(text: str, *, shown: Sequence[Seed], task: str | None = None, finish_reason: str = "stop") -> Reply:
    """What the base wrote to a prompt that showed these seeds."""
    return Reply(0, tuple(item.id for item in shown), task, text, finish_reason, len(text.split()))


def candidate(number: int = 0, *, task: str | None = "tone", input: str = "", instruction: str = "") -> Candidate:
    """A new instruction with its input."""
    return Candidate(
        instruction or "Is the tone good or bad?", input or f"New text {number}", task, number, 0, ("s1", "s2")
    )


def judged(task: str, line: str, score: float, *, number: int = 0, shots: int = 0) -> Judged:
    """An answer to an evaluation item that has this score in every metric."""
    return Judged(f"item-{number}", task, line, shots, "says", "stop", dict.fromkeys(("f1", "f1_box", "rougeL"), score))


def judged_both(task: str, base: float, expert: float, *, number: int = 0, shots: int = 0) -> list[Judged]:
    """The base's answer (through the template) and the expert's to an evaluation item."""
    return [
        judged(task, line, score, number=number, shots=shots)
        for line, score in ((Line.BASE_TEMPLATE, base), (Line.EXPERT, expert))
    ]


class Recorder(FakeEngine):
    """The fake engine, remembering what it was asked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.waves: list[list[GenerationRequest]] = []

    def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
        self.waves.append(list(requests))
        return super().generate(requests, **options)
