"""Bytes of a seeds file → rows with the line each came from; or every reason they cannot be read.

Reads JSONL, one JSON array, and CSV, with or without a byte order mark. Knows nothing about what a seed must hold: a
row is whatever one line said.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Never

from app.core.errors import Problem

_DELIMITERS = ",;\t"
_BYTE_ORDER_MARKS = ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
_JSON_SUFFIXES = {".json", ".jsonl", ".ndjson"}
_CSV_SUFFIXES = {".csv", ".tsv"}


@dataclass(frozen=True, slots=True)
class Row:
    """One thing read: ``line`` is the line of the file, or the position in a JSON list, both from 1."""

    line: int
    value: Any


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it came in."""

    data: bytes
    filename: str = ""


class _Unreadable(ValueError):
    """JSON that is well formed but not to be trusted."""


def read_rows(
    upload: Upload, *, source: str, required: Sequence[str], known: Collection[str]
) -> tuple[list[Row], list[Problem]]:
    """All rows that can be read and all problems met; ``source`` names the file in the problems.

    ``required`` and ``known`` are the columns a CSV file must have and may have.
    """
    text, problems = decode_text(upload.data, source=source)
    if problems:
        return [], problems
    match _format(text, upload.filename):
        case "csv":
            return _read_csv(text, source, required=required, known=known)
        case "array":
            return _read_array(text, source)
        case _:
            return _read_lines(text, source)


def decode_text(data: bytes, *, source: str) -> tuple[str, list[Problem]]:
    """The text, without a byte order mark; or the problem that names the first byte that is not UTF-8."""
    try:
        return data.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        hint = next((f"; it looks like {name}" for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), "")
        reason = f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}{hint}. Save the file as UTF-8"
        return "", [Problem("file", reason, line, source)]


def _format(text: str, filename: str) -> str:
    """``csv``, ``array`` or ``lines``: by suffix, else by how the text begins."""
    suffix = PurePath(filename.lower()).suffix
    if suffix in _CSV_SUFFIXES:
        return "csv"
    begin = text.lstrip()[:1]
    if begin == "[":
        return "array"
    if begin == "{" or suffix in _JSON_SUFFIXES or not begin:
        return "lines"
    return "csv"


def _read_lines(text: str, source: str) -> tuple[list[Row], list[Problem]]:
    rows: list[Row] = []
    problems: list[Problem] = []
    # only \n ends a line: str.splitlines would also cut at U+2028 and others, which JSON strings may hold
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            rows.append(Row(line, parse_json(content)))
        except ValueError as error:
            problems.append(Problem("json", json_reason(error, with_line=False), line, source))
    return rows, problems


def _read_array(text: str, source: str) -> tuple[list[Row], list[Problem]]:
    try:
        values = parse_json(text)
    except ValueError as error:
        return [], [Problem("json", json_reason(error, with_line=False), getattr(error, "lineno", None), source)]
    return [Row(position, value) for position, value in enumerate(values, start=1)], []


def parse_json(text: str) -> Any:
    """``json.loads`` that refuses keys given twice and nesting too deep for the parser; raises ValueError."""
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError as error:
        raise _Unreadable("nested too deeply") from error


def json_reason(error: ValueError, *, with_line: bool = True) -> str:
    """Why ``parse_json`` refused, in words."""
    if isinstance(error, json.JSONDecodeError):
        line = f"line {error.lineno}, " if with_line else ""
        return f"broken JSON: {error.msg} ({line}column {error.colno})"
    if isinstance(error, _Unreadable):
        return f"unusable JSON: {error}"
    return "unusable JSON: a number has too many digits"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Unreadable(f"key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return record


def _no_constant(name: str) -> Never:
    raise _Unreadable(f"{name} is not JSON")


def _read_csv(
    text: str, source: str, *, required: Sequence[str], known: Collection[str]
) -> tuple[list[Row], list[Problem]]:
    delimiter = max(_DELIMITERS, key=text.split("\n", 1)[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    problems: list[Problem] = []
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            if not header:
                header = [cell.strip() for cell in cells]
                if reasons := list(_header_faults(header, required=required, known=known)):
                    return [], [Problem("csv", reason, line, source) for reason in reasons]
            elif len(cells) > len(header):
                reason = (
                    f"{len(cells)} values for {len(header)} columns; put a text with {delimiter!r} in double quotes"
                )
                problems.append(Problem("csv", reason, line, source))
            elif any(cell.strip() for cell in cells):
                rows.append(Row(line, dict(zip(header, cells, strict=False))))
            line = reader.line_num + 1
    except csv.Error as error:
        problems.append(Problem("csv", _csv_reason(error), line, source))
    return rows, problems


def _header_faults(header: Sequence[str], *, required: Sequence[str], known: Collection[str]) -> Iterator[str]:
    """Faults of the first line, once for the whole file instead of once a row."""
    for name in required:
        if name not in header:
            yield f"no column {name!r}; the first line must name the columns, and names: {', '.join(header)}"
    for name in dict.fromkeys(header):
        if name not in known:
            yield f"unknown column {name!r}; there are: {', '.join(known)}"
        if header.count(name) > 1:
            yield f"column {name!r} is given twice"


def _csv_reason(error: csv.Error) -> str:
    if "field limit" in str(error):
        return f"a field is longer than {csv.field_size_limit():,} characters; is a closing double quote missing?"
    return f"broken CSV: {error}"
