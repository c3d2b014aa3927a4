"""For all tests: the garbage collector leaves alone what was there before the first of them."""

from __future__ import annotations

import gc

import pytest


def pytest_collection_finish(session: pytest.Session) -> None:
    """Libraries and collected tests are a million objects, and it would go through them again and again."""
    gc.collect()
    gc.freeze()
