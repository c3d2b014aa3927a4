"""Rows → seeds: every rule one labelled example must keep, with all the faults of an upload kept as problems.

Knows nothing of HTTP or of storage. Texts lose the white space around them (a trailing line break would be learned as
part of the answer) and the line ends of other systems. ``references`` are further right answers; a CSV cell holds them
as a JSON list. The keys in ``IGNORED_KEYS`` may be there and are not used. A row may be a chat: see ``chat_seeds``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from app.core.errors import Problem, TooLarge
from app.core.records import Seed
from app.services.chat_seeds import read_chats
from app.services.seed_files import Row, Upload, parse_json, read_rows

SEED_KEYS = ("task", "instruction", "input", "output")
REQUIRED_KEYS = ("task", "instruction", "output")  # the input may be empty or left out
REFERENCES = "references"
KNOWN_KEYS = (*SEED_KEYS, REFERENCES)
IGNORED_KEYS = ("id", "category", "domain")
MAX_TASK_CHARS = 200
MAX_REFERENCES = 100


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an upload may hold: items a set, characters a text; and the largest adapter rank that can be served."""

    max_seeds: int
    max_field_chars: int
    max_lora_rank: int


@dataclass(frozen=True, slots=True)
class PlacedSeed:
    """A seed and where it came from, so that a fault found later can still be told by its line."""

    seed: Seed
    line: int
    source: str


@dataclass(frozen=True, slots=True)
class SeedSet:
    """What one upload held: the seeds that can be used, the problems of the others, and the keys that were not used."""

    source: str
    seeds: tuple[PlacedSeed, ...]
    problems: tuple[Problem, ...]
    ignored: tuple[str, ...] = ()

    def records(self) -> list[Seed]:
        return [placed.seed for placed in self.seeds]


def read_seeds(given: Upload | Sequence[object], *, source: str, limits: Limits) -> SeedSet:
    """Seeds of a file or of a JSON list; raises TooLarge, and keeps every other fault as a problem."""
    if isinstance(given, Upload):
        known = (*KNOWN_KEYS, *IGNORED_KEYS)
        rows, problems = read_rows(given, source=source, required=REQUIRED_KEYS, known=known)
    else:
        rows, problems = [Row(position, value) for position, value in enumerate(given, start=1)], []
    check_number(len(rows), source=source, limits=limits)
    rows, unusable = read_chats(rows, source=source)
    problems = [*problems, *unusable]
    if not rows and not problems:
        problems = [Problem(source, f"there is not one item in {source}", source=source)]
    ignored: Counter[str] = Counter()
    placed = []
    for row in rows:
        faults = list(_faults(row.value, limits))
        problems += [Problem(field, reason, row.line, source) for field, reason in faults]
        if not faults:
            placed.append(PlacedSeed(_make_seed(row.value), row.line, source))
            ignored.update(key for key in IGNORED_KEYS if key in row.value)
    return SeedSet(source, tuple(placed), tuple(problems), tuple(sorted(ignored)))


def unusable_text(text: str) -> str | None:
    """Why a text cannot be stored or encoded, or None if it can."""
    if "\x00" in text:
        return "holds the character U+0000"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"holds half of a surrogate pair at character {error.start + 1}"
    return None


def check_number(number: int, *, source: str, limits: Limits) -> None:
    """Raise TooLarge for more items than a request may send."""
    if number > limits.max_seeds:
        reason = f"{number:,} items; at most {limits.max_seeds:,} can be sent (SELFSPEC_MAX_SEEDS)"
        raise TooLarge([Problem(source, reason, source=source)])


def _faults(value: object, limits: Limits) -> Iterator[tuple[str, str]]:
    """Field and reason of everything wrong with one row."""
    if not isinstance(value, dict):
        yield "item", f"must be an object with {', '.join(SEED_KEYS)}, and is {_kind(value)}"
        return
    for key in SEED_KEYS:
        if reason := _text_fault(value.get(key), key=key, given=key in value, limits=limits):
            yield key, reason
    if reason := _references_fault(_references(value), limits=limits):
        yield REFERENCES, reason
    for key in value:
        if key not in KNOWN_KEYS and key not in IGNORED_KEYS:
            yield str(key), f"unknown key; there are: {', '.join(KNOWN_KEYS)}"


def _text_fault(value: object, *, key: str, given: bool, limits: Limits) -> str | None:
    if value is None and key not in REQUIRED_KEYS:
        return None
    if not given:
        return "is missing"
    if not isinstance(value, str):
        return f"must be a text, and is {_kind(value)}"
    if key in REQUIRED_KEYS and not value.strip():
        return "is empty"
    longest = MAX_TASK_CHARS if key == "task" else limits.max_field_chars
    if len(value) > longest:
        return f"is {len(value):,} characters long; at most {longest:,} can be used"
    return unusable_text(value)


def _references(value: dict[str, object]) -> object:
    """What stands under that key; of a text (a CSV cell) the JSON list it holds, or else the text."""
    given = value.get(REFERENCES)
    if not isinstance(given, str):
        return given
    if not given.strip():
        return None
    try:
        read = parse_json(given)
    except ValueError:
        return given
    return read if isinstance(read, list) else given


def _references_fault(given: object, *, limits: Limits) -> str | None:
    if given is None:
        return None
    if not isinstance(given, list):
        return 'must be a list of texts, in CSV as JSON: ["one", "two"]'
    if len(given) > MAX_REFERENCES:
        return f"holds {len(given):,} texts; at most {MAX_REFERENCES} can be used"
    faults = (_text_fault(text, key="output", given=True, limits=limits) for text in given)
    return next((f"text {number} {fault}" for number, fault in enumerate(faults, start=1) if fault), None)


def _kind(value: object) -> str:
    names = {
        type(None): "null",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
    }
    return names.get(type(value), "an object")


def _make_seed(value: dict[str, Any]) -> Seed:
    texts = {key: _plain(value.get(key) or "") for key in SEED_KEYS}
    others = _references(value)
    listed = [_plain(text) for text in others] if isinstance(others, list) else []
    references = tuple(dict.fromkeys(text for text in listed if text != texts["output"]))
    return Seed(**texts, references=references)


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()
