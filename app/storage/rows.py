"""JSONL files that a kill may cut short: one JSON object a line, UTF-8, flushed as they grow.

A last line without its newline was torn by a crash and does not count. Knows nothing about what the rows mean.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO

from app.core.errors import ArtifactDamaged
from app.storage.disk import disk_errors

_CHUNK = 64 * 1024


def append_rows(path: Path, rows: Iterable[object]) -> int:
    """Append rows (mappings or dataclass records) and flush; returns how many. Holds few of them at a time.

    Cut a torn last line first (``truncate_torn``). Raises DiskFull, ValueError on NaN.
    """
    count = 0
    with disk_errors(path), path.open("ab", buffering=_CHUNK) as file:
        before = file.tell()
        try:
            for row in rows:
                file.write(_encode(row))
                count += 1
        except BaseException:
            file.truncate(before)
            raise
    return count


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole rows; none if the file is missing. Raises ArtifactDamaged at a whole line that is no object."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            yield decode_row(line, path, number)


def truncate_torn(path: Path) -> int:
    """Cut a last line that has no newline; returns the bytes cut (0: nothing to heal, or no file)."""
    if not path.exists():
        return 0
    with disk_errors(path), path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        whole = _end_of_last_line(file, size)
        file.truncate(whole)
    return size - whole


def truncate_last(path: Path, count: int) -> None:
    """Cut the last ``count`` lines; every line must be whole."""
    with disk_errors(path), path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        for _ in range(count):
            end = _end_of_last_line(file, end - 1)
        file.truncate(end)


def _encode(row: object) -> bytes:
    plain = asdict(row) if is_dataclass(row) and not isinstance(row, type) else row
    if not isinstance(plain, Mapping):
        raise TypeError(f"a row is a mapping or a dataclass record, not {type(row).__name__}")
    try:
        return json.dumps(plain, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate: JSON can say it, UTF-8 cannot
        return json.dumps(plain, allow_nan=False).encode() + b"\n"


def decode_row(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """Line ``number`` (from 1) of a file; raises ArtifactDamaged."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ArtifactDamaged(f"{path}, line {number}: not JSON") from error
    if not isinstance(row, dict):
        raise ArtifactDamaged(f"{path}, line {number}: not a JSON object")
    return row


def _end_of_last_line(file: BinaryIO, size: int) -> int:
    """Position behind the last newline, searched from the end."""
    end = size
    while end > 0:
        start = max(0, end - _CHUNK)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
