"""Fixtures that start a whole service; see ``live``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.api.live import Service, serve


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A fresh service for one test."""
    with serve(tmp_path / "var") as running:
        yield running


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts a service with settings or an engine of one's own; it is stopped at the end of the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(serve(tmp_path / "var", **options))
