"""JSONL files that a crash may cut short."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.core.errors import ArtifactDamaged, SetupError
from app.storage.rows import append_rows, read_rows, truncate_last, truncate_torn


@dataclass(frozen=True, slots=True)
class Note:
    text: str
    tags: tuple[str, ...] = ()


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    texts = ["plain", "two\nlines", "line separator \u2028 here", "Größe €", "\ud800 alone", ""]
    assert append_rows(path, [{"text": text} for text in texts]) == len(texts)
    append_rows(path, [Note("record", ("a", "b"))])
    assert [row["text"] for row in read_rows(path)] == [*texts, "record"]
    assert len(path.read_bytes().decode().split("\n")) == len(texts) + 2


@pytest.mark.parametrize("torn", [b"{", b'{"n": 3', b'{"n": 3}', b'{"text": "\xe2\x82', b"x" * 200_000])
def test_a_torn_last_line_is_ignored_and_healed(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    append_rows(path, [{"n": 1, "long": "x" * 200_000}, {"n": 2}])
    with path.open("ab") as file:
        file.write(torn)
    assert [row["n"] for row in read_rows(path)] == [1, 2]
    assert truncate_torn(path) == len(torn)
    assert truncate_torn(path) == 0
    append_rows(path, [{"n": 3}])
    assert [row["n"] for row in read_rows(path)] == [1, 2, 3]


def test_a_file_that_is_one_torn_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"n": 1')
    assert list(read_rows(path)) == []
    assert truncate_torn(path) == 7
    assert path.read_bytes() == b""


def test_a_missing_file_has_no_rows_and_nothing_to_heal(tmp_path: Path) -> None:
    assert list(read_rows(tmp_path / "none.jsonl")) == []
    assert truncate_torn(tmp_path / "none.jsonl") == 0


@pytest.mark.parametrize("line", [b"not json", b"[1]", b'"text"', b"\xff"])
def test_damage_in_the_middle_is_noticed_with_its_line(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"n": 1}\n' + line + b'\n{"n": 3}\n')
    with pytest.raises(ArtifactDamaged, match="line 2"):
        list(read_rows(path))


def test_what_is_no_json_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with pytest.raises(ValueError, match="JSON compliant"):
        append_rows(path, [{"loss": 1.0}, {"loss": float("nan")}])
    with pytest.raises(TypeError, match="not list"):
        append_rows(path, [["a"]])
    assert list(read_rows(path)) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_clear_line() -> None:
    with pytest.raises(SetupError, match="the disk is full"):
        append_rows(Path("/dev/full"), [{"n": 1}])


def test_rows_are_json_for_anyone(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_rows(path, [Note("x", ("a",))])
    assert json.loads(path.read_text()) == {"text": "x", "tags": ["a"]}


def test_the_last_lines_can_be_cut(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_rows(path, ({"n": n, "text": "x" * 70_000} for n in range(5)))
    truncate_last(path, 2)
    assert [row["n"] for row in read_rows(path)] == [0, 1, 2]
    append_rows(path, [{"n": 9}])
    truncate_last(path, 4)
    assert path.read_bytes() == b""
