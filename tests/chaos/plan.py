"""What is going to happen, drawn from one seed number: the jobs, what their callers do, and what breaks when.

Moments are progress, not time: an act is due once so many stages have succeeded over all jobs, a caller's request once
so many stages of the job have.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from app.core.presets import make_recipe
from app.pipeline.stages import walk
from tests.services.house import SEEDS

DOMAINS = ("finance", "medicine", "law")
RECIPE_SEEDS = 4  # with each shape
EVALUATION = [
    {"task": "tone", "instruction": "Is the tone good?", "input": f"Loss of firm {n}", "output": "bad"}
    for n in range(8)
]
SHAPES: tuple[dict[str, Any], ...] = (
    {"num_examples": 30, "controls": []},
    {"num_examples": 20},
    {"num_examples": 12, "controls": [], "iterations": 2},
    {"num_examples": 16, "controls": ["steps"], "responders": 2},
    {"num_examples": 20, "controls": [], "review": True},
)


class Act(StrEnum):
    """A way to make trouble."""

    KILL_CHILD = "kill_child"  # kill -9 of a job's process
    KILL_WORKER = "kill_worker"
    KILL_API = "kill_api"
    FLUSH = "flush_broker"
    CUT = "cut_database"  # every connection there is
    DOUBLE = "double_messages"  # of jobs that wait, run or have ended
    FREEZE = "freeze_worker"  # with its job's process, for longer than its lease; then it wakes


PER_JOB: dict[Act, float] = {
    Act.KILL_CHILD: 0.3,
    Act.KILL_WORKER: 0.1,
    Act.KILL_API: 0.06,
    Act.FLUSH: 0.08,
    Act.CUT: 0.1,
    Act.DOUBLE: 0.2,
    Act.FREEZE: 0.05,
}


class Caller(StrEnum):
    """What a caller does besides posting a job."""

    WAITS = "waits"
    REPEATS = "repeats"  # the same request with the same key
    CANCELS = "cancels"
    RETRIES = "retries"  # cancels first
    PAUSES = "pauses"  # and resumes


SHARES: dict[Caller, int] = {
    Caller.WAITS: 50,
    Caller.REPEATS: 15,
    Caller.CANCELS: 10,
    Caller.RETRIES: 12,
    Caller.PAUSES: 13,
}


@dataclass(frozen=True, slots=True)
class Order:
    """One job to post. ``moment``: how many of its stages have ended when its caller acts."""

    key: str
    domain: str
    recipe: dict[str, Any]
    caller: Caller
    moment: int

    @property
    def variant(self) -> str:
        """Orders that agree in this must end with the same rows and weights."""
        return json.dumps([self.domain, self.recipe], sort_keys=True)

    @property
    def is_reviewed(self) -> bool:
        return bool(self.recipe.get("review"))

    @property
    def stages(self) -> list[str]:
        return [stage.name for stage in walk(make_recipe(self.recipe))]

    def body(self) -> dict[str, Any]:
        """Of POST /specialize."""
        return {"domain": self.domain, "seeds": SEEDS, "evaluation": EVALUATION, "recipe": self.recipe}


@dataclass(frozen=True, slots=True)
class Trouble:
    """An act, due once ``at`` stages have succeeded. ``stage``: the kind its victim is to be at work on, if any."""

    act: Act
    at: int
    stage: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Orders in the order they are posted, troubles in the order they are due."""

    seed: int
    orders: tuple[Order, ...]
    troubles: tuple[Trouble, ...]


def make_plan(seed: int, num_jobs: int, acts: Collection[Act]) -> Plan:
    """The same numbers make the same plan. Each of ``acts`` happens at least once."""
    chance = random.Random(seed)
    orders = tuple(_order(chance, seed, number) for number in range(num_jobs))
    num_stages = sum(len(order.stages) for order in orders)
    troubles = [
        Trouble(act, chance.randrange(max(1, num_stages * 3 // 4)), _stage(chance, act))
        for act in Act
        if act in acts
        for _ in range(max(1, round(PER_JOB[act] * num_jobs)))
    ]
    return Plan(seed, orders, tuple(sorted(troubles, key=lambda trouble: trouble.at)))


def _order(chance: random.Random, seed: int, number: int) -> Order:
    """Every shape comes with every recipe seed again and again, in one domain each."""
    shape, recipe_seed = chance.randrange(len(SHAPES)), chance.randrange(RECIPE_SEEDS)
    (caller,) = chance.choices(list(SHARES), list(SHARES.values()))
    recipe = {"preset": "quick", "seed": recipe_seed, **SHAPES[shape]}
    domain = DOMAINS[(shape + recipe_seed) % len(DOMAINS)]
    return Order(f"chaos-{seed}-{number}", domain, recipe, caller, moment=chance.randrange(5))


def _stage(chance: random.Random, act: Act) -> str | None:
    if act not in {Act.KILL_CHILD, Act.KILL_WORKER, Act.FREEZE}:
        return None
    return chance.choice(("instructions", "responses", "dataset", "adapter", "metrics", None))
