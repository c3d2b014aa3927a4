"""Records to JSON rows and back, records within records too. No files: who calls decides where rows lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_row(record: Any) -> dict[str, Any]:
    """A record as a JSON-ready dict."""
    return {field.name: _plain(getattr(record, field.name)) for field in dataclasses.fields(record)}


def from_row(kind: type[T], row: Mapping[str, Any]) -> T:
    """The record that ``to_row`` made ``row`` from; keys of other records are ignored."""
    hints = _hints(kind)  # type: ignore[arg-type]  # every class can be hashed
    values = {
        field.name: _typed(hints[field.name], row[field.name])
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if field.name in row
    }
    return kind(**values)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if dataclasses.is_dataclass(value):
        return to_row(value)
    return value.value if isinstance(value, Enum) else value


def _typed(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    if get_origin(hint) in (Union, UnionType):  # X | None
        hint = next(part for part in get_args(hint) if part is not type(None))
    if isinstance(value, list):
        part = next(iter(get_args(hint)), Any)
        return tuple(_typed(part, item) for item in value)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return from_row(hint, value)
    return hint(value) if isinstance(hint, type) and issubclass(hint, Enum) else value
