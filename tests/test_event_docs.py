"""What docs/events.md and docs/webhooks.md promise is what is written and sent."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from app.core.event_types import EventType
from app.models import EventLevel
from app.services.webhook_options import key_of
from app.services.webhooks import signature
from app.storage.webhooks import WEBHOOK_TYPES
from tests.import_rule import ROOT

TYPES = set(get_args(EventType))
LEVELS = {level.value for level in EventLevel}


def rows(page: str) -> list[list[str]]:
    """The cells of a page's tables whose first one is a name."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [[cell.strip() for cell in line.split(" | ")] for line in re.findall(r"^\| (`.*) \|$", text, re.MULTILINE)]


def test_every_type_of_event_has_its_row() -> None:
    """That no other type is written, mypy sees to: whoever tells an event names one of EventType."""
    listed = rows("events.md")
    assert sorted(name.strip("`") for name, *_ in listed) == sorted(TYPES)
    assert all(set(levels.split(", ")) <= LEVELS for _, levels, *_ in listed)


def test_every_type_of_event_is_written_somewhere() -> None:
    source = "".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "app").rglob("*.py")
        if path.name not in ("event_types.py", "webhooks.py") or path.parts[-2] == "services"
    )
    assert {name for name in TYPES if f'"{name}"' not in source} == set()


def test_every_type_of_webhook_has_its_row() -> None:
    assert {name.strip("`") for name, *_ in rows("webhooks.md")} == set(WEBHOOK_TYPES.values())
    assert set(WEBHOOK_TYPES) <= TYPES


@pytest.fixture(scope="module")
def is_genuine() -> Callable[[bytes, dict[str, str], str], bool]:
    """The function that the page shows."""
    page = Path(ROOT / "docs" / "webhooks.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"<!-- verify: begin -->\n```python\n(.*?)```\n<!-- verify: end -->", page, re.DOTALL)
    names: dict[str, Callable[[bytes, dict[str, str], str], bool]] = {}
    exec(code, names)
    return names["is_genuine"]


@pytest.mark.parametrize("secret", ["whsec_c2VsZnNwZWMgc2lnbnMgd2l0aCB0aGlzIGtleSE=", "correct horse battery"])
def test_the_check_that_is_shown_works(is_genuine: Callable[[bytes, dict[str, str], str], bool], secret: str) -> None:
    body, now = b'{"id": "evt-1"}', int(time.time())

    def headers(timestamp: int) -> dict[str, str]:
        signed = signature([key_of(secret)], id="evt-1", timestamp=timestamp, body=body)
        return {"webhook-id": "evt-1", "webhook-timestamp": str(timestamp), "webhook-signature": signed}

    assert is_genuine(body, headers(now), secret)
    assert not is_genuine(body + b" ", headers(now), secret)
    assert not is_genuine(body, headers(now), "another secret of length")
    assert not is_genuine(body, headers(now - 3600), secret)
