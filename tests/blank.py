"""A SQLite file with all tables and no rows, in no time: the migrations run once a process, then theirs is copied."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from app.storage.database import Database


def lay_tables(path: Path) -> None:
    """What ``Database.upgrade`` makes where there is nothing yet; a file that is there stays."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_migrated())


@cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "blank.db"
        with Database(f"sqlite:///{path}") as database:
            database.upgrade()
        return path.read_bytes()
