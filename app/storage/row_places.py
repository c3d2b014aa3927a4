"""Any row of a committed JSONL file without reading those before it.

Where the rows begin is found in one pass and remembered: the files of artifacts never change. Knows nothing about what
the rows mean.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from app.storage.rows import decode_row

_REMEMBERED = 8  # files; 8 bytes a row each


class RowPlaces:
    """The places of one file's rows, from 0."""

    def __init__(self, path: Path) -> None:
        """Reads the file once, parsing nothing. Raises FileNotFoundError."""
        self._path, self._begins = path, array("Q")
        place = 0
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    self._begins.append(place)
                place += len(line)

    def __len__(self) -> int:
        return len(self._begins)

    def rows(self, first: int, limit: int) -> Iterator[dict[str, Any]]:
        """At most ``limit`` rows from row ``first`` on; none behind the end."""
        count = min(limit, len(self) - first)
        if count <= 0:
            return
        with self._path.open("rb") as file:
            file.seek(self._begins[first])
            for number, line in enumerate(islice(file, count), start=first + 1):
                yield decode_row(line, self._path, number)


@lru_cache(maxsize=_REMEMBERED)
def row_places(path: Path) -> RowPlaces:
    """The places of the rows of an artifact's file; raises FileNotFoundError."""
    return RowPlaces(path)
