"""A bench without a job: a stage's files in a folder, its events and progress in lists."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.core.ports import Engine
from app.core.recipe import Recipe
from app.core.records import Seed
from app.engine.fake import FakeEngine
from app.pipeline.bench import ROWS, AdapterPlace, Champion, Retriever, Stage
from app.pipeline.holdout import Split


@dataclass
class Workbench:
    """``app.pipeline.bench.Bench``; ``products``: rows by kind and file."""

    recipe: Recipe
    split: Split
    stage: Stage
    folder: Path
    engine: Engine = field(default_factory=FakeEngine)
    places: dict[str, AdapterPlace] = field(default_factory=dict)
    chosen: str | None = None  # the expert's stage; None: the first
    champion: Champion | None = None
    off_domain: Mapping[str, Sequence[Seed]] = field(default_factory=dict)
    labelled: Sequence[Seed] = ()
    retriever: Retriever | None = None
    domain: str = "finance"
    description: str = ""
    products: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    events: list[tuple[str, str, Mapping[str, Any], bool]] = field(default_factory=list)
    progressed: list[tuple[int, int]] = field(default_factory=list)
    details: list[Mapping[str, Any]] = field(default_factory=list)  # what the progress told beside

    @property
    def checkpoints(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.checkpoints")

    def product(self, kind: str, file: str = ROWS) -> Iterator[dict[str, Any]]:
        return iter(self.products[kind, file])

    def adapters(self) -> dict[str, AdapterPlace]:
        return self.places

    def expert(self) -> AdapterPlace:
        return self.places[self.chosen or next(iter(self.places))]

    def writers(self) -> list[AdapterPlace]:
        return []

    def kept(self, file: str, *, unit: int) -> Iterator[dict[str, Any]]:
        rows = self.rows(file)
        whole = len(rows) - len(rows) % unit
        if whole < len(rows):
            self.write(file, rows[:whole])
        return iter(rows[:whole])

    def append(self, file: str, rows: Iterable[object]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / file).open("a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in rows)

    def write(self, file: str, rows: Iterable[object]) -> None:
        listed = list(rows)
        (self.folder / file).unlink(missing_ok=True)
        self.append(file, listed)

    def saved(self) -> None:
        pass

    def progress(self, done: int, total: int, *, detail: Mapping[str, Any] | None = None) -> None:
        self.progressed.append((done, total))
        self.details += [] if detail is None else [detail]

    def tell(self, type: str, message: str, *, data: Mapping[str, Any], is_warning: bool = False) -> None:
        self.events.append((type, message, data, is_warning))

    def rows(self, file: str = ROWS) -> list[dict[str, Any]]:
        """What a file of the stage holds."""
        path = self.folder / file
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []

    def told(self, type: str) -> tuple[str, Mapping[str, Any], bool]:
        """The only event of a type: its message, its data, whether it warns."""
        [event] = [event for event in self.events if event[0] == type]
        return event[1:]
