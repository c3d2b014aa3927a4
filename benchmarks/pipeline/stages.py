"""Stages of the pipeline without a service: files in a folder, any engine that can answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.core.ports import Engine
from app.core.recipe import Recipe
from app.core.records import Seed
from app.pipeline.bench import ROWS, AdapterPlace, Champion, Retriever, Stage
from app.pipeline.holdout import Split


@dataclass(slots=True)
class FolderBench:
    """``app.pipeline.bench.Bench`` for one stage at a time; what it made lies in ``root``, by the stage's name."""

    root: Path
    recipe: Recipe
    domain: str
    split: Split
    engine: Engine
    stage: Stage
    description: str = ""
    retriever: Retriever | None = None
    champion: Champion | None = None
    labelled: Sequence[Seed] = ()
    off_domain: Mapping[str, Sequence[Seed]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self._made(self.root / self.stage.name)

    @property
    def checkpoints(self) -> Path:
        return self._made(self.root / f"{self.stage.name}.checkpoints")

    def run(self, stage: Stage) -> list[dict[str, Any]]:
        """Carry out a stage; its rows."""
        self.stage = stage
        stage.work(self)
        return list(_read(self.folder / ROWS))

    def product(self, kind: str, file: str = ROWS) -> Iterator[dict[str, Any]]:
        return _read(self.root / kind / file)

    def adapters(self) -> dict[str, AdapterPlace]:
        return {}

    def expert(self) -> AdapterPlace:
        raise LookupError("no stage here makes an adapter")

    def writers(self) -> list[AdapterPlace]:
        return []

    def kept(self, file: str, *, unit: int) -> Iterator[dict[str, Any]]:
        return _read(self.folder / file)

    def append(self, file: str, rows: Iterable[object]) -> None:
        with (self.folder / file).open("a", encoding="utf-8") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def saved(self) -> None:
        """Nobody asks for a pause here."""

    def write(self, file: str, rows: Iterable[object]) -> None:
        (self.folder / file).unlink(missing_ok=True)
        self.append(file, rows)

    def progress(self, done: int, total: int, *, detail: Mapping[str, Any] | None = None) -> None:
        return None

    def tell(self, type: str, message: str, *, data: Mapping[str, Any], is_warning: bool = False) -> None:
        return None

    @staticmethod
    def _made(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _read(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with path.open(encoding="utf-8") as rows:
        yield from map(json.loads, rows)
