"""A file of passages, read line by line: each passage once, and every line that cannot be used with its reason.

JSONL: a line is an object with ``text`` and, if there are any, ``id`` and ``title``; other keys are not used. Plain
text: a line is a passage. Empty lines do not count. What is held of a passage is a digest of its text.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import PurePath
from typing import Any, BinaryIO

from app.core.errors import Problem
from app.core.records import digest_of
from app.core.texts import evened
from app.services.passage_index import words_of
from app.services.seed_files import decode_text, json_reason, parse_json
from app.services.seeds import unusable_text

SOURCE = "file"  # how problems call what was sent
MAX_NAME_CHARS = 500  # of an id or a title
MAX_PROBLEMS = 100  # then the rest is not read
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
_BYTES_A_CHAR = 12  # most that JSON takes: two escapes


class CorpusReader:
    """Reads one file once, and tells afterwards what it met."""

    def __init__(self, file: BinaryIO, *, filename: str = "", max_chars: int) -> None:
        """``max_chars``: of one passage. The name's ending says what the file is; without one its first byte does."""
        self.num_passages, self.num_duplicates = 0, 0
        self.problems: list[Problem] = []
        self._file, self._max_chars = file, max_chars
        self._is_json = _is_json(file, filename)
        self._texts: set[int] = set()
        self._ids: set[int] = set()

    def rows(self) -> Iterator[dict[str, str]]:
        """Passages as ``id``, ``title``, ``text``, in order; of passages alike but for case and spacing the first."""
        for line, content in self._lines():
            row = self._row(line, content)
            if len(self.problems) >= MAX_PROBLEMS:
                self._note(line, SOURCE, "the rest of the file was not read: too many lines cannot be used")
                return
            if row is not None and self._is_new(line, row):
                self.num_passages += 1
                yield row

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Lines that hold something, with their numbers from 1. No line is held that could not be used anyway."""
        longest = _BYTES_A_CHAR * (self._max_chars + 2 * MAX_NAME_CHARS)
        number = 0
        while data := self._file.readline(longest):
            number += 1
            if len(data) == longest and not data.endswith(b"\n"):
                self._note(number, "text", f"the line is longer than {longest:,} bytes: send shorter passages")
                while data and not data.endswith(b"\n"):
                    data = self._file.readline(longest)
                continue
            text, problems = decode_text(data, source=SOURCE)
            self.problems += [Problem(fault.field, fault.reason, number, SOURCE) for fault in problems]
            if text.strip():
                yield number, text

    def _row(self, line: int, content: str) -> dict[str, str] | None:
        """The passage of a line; None: it cannot be used."""
        try:
            row = parse_json(content) if self._is_json else {"text": content}
        except ValueError as error:
            faults = [("json", json_reason(error, with_line=False))]
        else:
            faults = list(self._faults(row))
        for field, reason in faults:
            self._note(line, field, reason)
        return None if faults else _plain(row)

    def _faults(self, row: object) -> Iterator[tuple[str, str]]:
        if not isinstance(row, dict):
            yield "line", 'must be an object such as {"text": "…"}'
            return
        for key in ("text", "id", "title"):
            if fault := self._fault(key, row.get(key)):
                yield key, fault

    def _fault(self, key: str, value: object) -> str | None:
        if value is None:
            return "is missing" if key == "text" else None
        if not isinstance(value, str) and not (key == "id" and type(value) is int):
            return "must be a text"
        text, longest = str(value), self._max_chars if key == "text" else MAX_NAME_CHARS
        if len(text) > longest:
            told = " (SELFSPEC_MAX_FIELD_CHARS); send it in pieces" if key == "text" else ""
            return f"is {len(text):,} characters long; at most {longest:,} can be used{told}"
        if key == "text" and not words_of(text):
            return "holds no word"
        return unusable_text(text)

    def _is_new(self, line: int, row: dict[str, str]) -> bool:
        """Whether its text is; a known id with a new text is a fault."""
        text = _short_digest(evened(row["text"]))
        if text in self._texts:
            self.num_duplicates += 1
            return False
        if (id := _short_digest(row["id"])) in self._ids:
            self._note(line, "id", f"{row['id']!r} is the id of another passage; leave ids out to have them made")
        self._texts.add(text)
        self._ids.add(id)
        return True

    def _note(self, line: int, field: str, reason: str) -> None:
        self.problems.append(Problem(field, reason, line, SOURCE))


def _is_json(file: BinaryIO, filename: str) -> bool:
    suffix = PurePath(filename.lower()).suffix
    if suffix in (*_JSON_SUFFIXES, ".txt"):
        return suffix != ".txt"
    begin = file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()
    file.seek(0)
    return begin.startswith((b"{", b"["))


def _plain(row: dict[str, Any]) -> dict[str, str]:
    title, text = (row.get("title") or "").strip(), row["text"].strip()
    given = row.get("id")
    id = digest_of("passage", title, text) if given in (None, "") else str(given)
    return {"id": id, "title": title, "text": text}


def _short_digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
