"""Stores in a folder, and an environment that leads every child process there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.bootstrap import Stores, build_stores
from app.settings import Settings
from tests.services.house import BASE, House


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    for name in [name for name in os.environ if name.startswith("SELFSPEC_")]:
        monkeypatch.delenv(name)
    environment = {"DATA_DIR": tmp_path, "ENGINE": "fake", "BASE": BASE, "HEARTBEAT_SECONDS": 0.01}
    for name, value in environment.items():
        monkeypatch.setenv(f"SELFSPEC_{name}", str(value))
    return House(tmp_path)


@pytest.fixture
def stores(house: House) -> Iterator[Stores]:
    with closing(build_stores(Settings())) as opened:
        yield opened
