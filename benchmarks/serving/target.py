"""What can be measured: an engine in one of its variants, started, with the base and the experts loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

from benchmarks.serving.load import Address, Sample, drive
from benchmarks.serving.workload import Point, Request


@dataclass(frozen=True, slots=True)
class Kit:
    """What every engine gets: the same base, adapters and threads, and a folder to keep things in."""

    model: Path
    base_id: str  # the base's public name
    adapters: dict[str, Path]  # PEFT folders by expert
    folder: Path
    threads: int


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run an engine."""

    dtype: str
    note: str = ""  # what is special about it beside the dtype
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.dtype} {self.note}".strip()


class Target(Protocol):
    """A started engine."""

    @property
    def name(self) -> str:
        """As in the table."""

    @property
    def process(self) -> psutil.Process:
        """The root of the processes whose time counts."""

    def can(self, point: Point) -> bool:
        """Whether the point means anything for it."""

    def prepare(self, point: Point) -> None:
        """Called before a point is measured."""

    def ask(self, requests: Sequence[Request], *, concurrency: int) -> list[Sample]:
        """Answer all, at most ``concurrency`` at once."""


class Engine(Protocol):
    """Something that serves the base and experts."""

    @property
    def name(self) -> str:
        """As in the table."""

    def missing(self) -> str | None:
        """None if it is installed; otherwise how to install it."""

    def variants(self) -> tuple[Variant, ...]:
        """Those worth trying; the plainest float32 first."""

    def serve(self, variant: Variant) -> AbstractContextManager[tuple[Target, ...]]:
        """Started and ready, until the context ends. Raises ServerFailed."""


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """A server of streamed ``/v1/completions``."""

    name: str
    process: psutil.Process
    address: Address
    mixes: tuple[str, ...]
    body: Callable[[Request], dict[str, Any]]
    is_asked_drawn: bool = False  # drawn lengths are what static batches are compared at
    load_many: Callable[[], None] | None = None  # called before every measurement of `many`

    def can(self, point: Point) -> bool:
        return point.mix in self.mixes and (self.is_asked_drawn or not point.drawn)

    def prepare(self, point: Point) -> None:
        if point.mix == "many" and self.load_many is not None:
            self.load_many()

    def ask(self, requests: Sequence[Request], *, concurrency: int) -> list[Sample]:
        return drive(self.address, [self.body(request) for request in requests], concurrency=concurrency)


def completion_body(request: Request, *, model: str | None = None) -> dict[str, Any]:
    """What all servers read alike: greedy, past the end of sequence, streamed, with usage in the last event."""
    return {
        "model": model or request.model,
        "prompt": request.prompt,
        "max_tokens": request.max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
