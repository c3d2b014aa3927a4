"""Log lines as machines and people read them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime

import pytest

from app import logs
from app.core.request_notes import CURRENT, RequestNotes


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where lines go; logging is afterwards as it was."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    for handler in before:  # else they are closed
        root.removeHandler(handler)
    yield io.StringIO()
    root.handlers[:] = before
    root.setLevel(level)


def test_json_is_one_object_a_line(stream: io.StringIO) -> None:
    logs.configure(level="info", style="json", stream=stream)
    try:
        raise ValueError("broken\nin two")
    except ValueError:
        logging.getLogger("some.room").exception("it failed: %s", "why\u2028so", extra={"fields": {"stage": "gate"}})
    logging.getLogger("some.room").debug("too fine")
    (text,) = stream.getvalue().splitlines()
    line = json.loads(text)
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line.pop("exception").endswith("ValueError: broken\nin two")
    assert line == {"level": "error", "logger": "some.room", "message": "it failed: why\u2028so", "stage": "gate"}


@pytest.mark.parametrize("style", ["text", "json"])
def test_lines_name_the_request_they_belong_to(stream: io.StringIO, style: str) -> None:
    logs.configure(level="warning", style=style, stream=stream)  # type: ignore[arg-type]
    token = CURRENT.set(RequestNotes("req-7", "GET", "/", 0.0))
    logging.getLogger("some.room").warning("inside")
    CURRENT.reset(token)
    logging.getLogger("some.room").warning("outside")
    inside, outside = stream.getvalue().splitlines()
    assert "req-7" in inside
    assert "req-7" not in outside
