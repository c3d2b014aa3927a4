"""Rows → seeds: every rule one labelled example must keep, with all the faults of an upload kept as problems.

Knows nothing of HTTP or of storage. Texts lose the white space around them (a trailing line break would be learned as
part of the answer) and the line ends of other systems; the keys in ``IGNORED_KEYS`` may be there and are not used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.core.errors import Problem, TooLarge
from app.core.records import Seed
from app.services.seed_files import Row, Upload, read_rows

SEED_KEYS = ("task", "instruction", "input", "output")
REQUIRED_KEYS = ("task", "instruction", "output")  # the input may be empty or left out
IGNORED_KEYS = ("id", "category", "domain", "references")
MAX_TASK_CHARS = 200


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
        known = (*SEED_KEYS, *IGNORED_KEYS)
        rows, problems = read_rows(given, source=source, required=REQUIRED_KEYS, known=known)
    else:
        rows, problems = [Row(position, value) for position, value in enumerate(given, start=1)], []
    _check_number(len(rows), source=source, limits=limits)
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


def _check_number(number: int, *, source: str, limits: Limits) -> None:
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
    for key in value:
        if key not in SEED_KEYS and key not in IGNORED_KEYS:
            yield str(key), f"unknown key; there are: {', '.join(SEED_KEYS)}"


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


def _make_seed(value: dict[str, str | None]) -> Seed:
    return Seed(**{key: _plain(value.get(key) or "") for key in SEED_KEYS})


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()
