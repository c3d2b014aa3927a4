"""What a stage works on: its inputs, its folder and its voice. Who runs the stages provides it.

Row files grow in whole units (waves), so that a killed stage goes on from the last whole one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from app.core.ports import Engine
from app.core.recipe import Recipe
from app.pipeline.holdout import Split

ROWS = "rows.jsonl"  # the file of a stage's product


class Bench(Protocol):
    """One stage of one job."""

    @property
    def recipe(self) -> Recipe: ...

    @property
    def domain(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def split(self) -> Split: ...

    @property
    def engine(self) -> Engine: ...

    @property
    def folder(self) -> Path:
        """Where this stage's files grow."""

    def product(self, stage: str, file: str = ROWS) -> list[dict[str, Any]]:
        """Rows an earlier stage made."""

    def adapter(self) -> tuple[str, Path]:
        """Id and folder of the adapter that the ``adapter`` stage made."""

    def kept(self, file: str, *, unit: int) -> list[dict[str, Any]]:
        """Rows that a killed attempt left in ``file``, cut to whole units."""

    def append(self, file: str, rows: Iterable[object]) -> None:
        """Add rows to ``file`` and flush them."""

    def write(self, file: str, rows: Iterable[object]) -> None:
        """Make ``file`` of these rows."""

    def progress(self, done: int, total: int) -> None:
        """Tell how far this stage is; cheap to call often."""

    def tell(self, type: str, message: str, *, data: Mapping[str, Any], is_warning: bool = False) -> None:
        """Leave an event."""
