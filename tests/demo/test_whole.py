"""The demo as a person runs it, on the fake engine: real processes, real HTTP, real database and broker."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.service


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def run_demo(data_dir: Path) -> tuple[str, dict[str, Any]]:
    """What it printed, and the figures of its last line."""
    environment = {
        **os.environ,
        "SELFSPEC_ENGINE": "fake",
        "SELFSPEC_DATA_DIR": str(data_dir),
        "SELFSPEC_PORT": str(free_port()),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "app.cli", "demo"], capture_output=True, text=True, env=environment, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, json.loads(ended.stdout.splitlines()[-1])["demo"]


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]:
    """Two demos in one folder, one with a space in its name."""
    data_dir = tmp_path_factory.mktemp("demo") / "a folder"
    return run_demo(data_dir), run_demo(data_dir)


Twice = tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]


def test_every_stage_is_shown_and_timed(twice: Twice) -> None:
    shown, figures = twice[0]
    for stage in ("instructions", "responses", "dataset", "adapter", "metrics", "gate"):
        assert f"{stage:<13} succeeded" in shown
        assert figures["seconds"][stage] >= 0
    assert {"install", "prepare", "start", "answers", "total"} <= set(figures["seconds"])


def test_the_figures_are_the_means_and_their_interval(twice: Twice) -> None:
    _, figures = twice[0]
    assert figures["difference"] == pytest.approx(figures["expert_f1"] - figures["base_f1"], abs=0.02)
    assert figures["low"] <= figures["difference"] <= figures["high"]


def test_both_answers_are_shown_with_who_gave_them(twice: Twice) -> None:
    shown, figures = twice[0]
    assert "base (adapter None)" in shown
    assert f"expert (adapter {figures['adapter']})" in shown
    assert "is attached: " in shown
    assert "make serve" in shown
    assert "/docs" in shown


def test_a_second_demo_shows_the_same_expert_again(twice: Twice) -> None:
    (_, first), (shown, second) = twice
    assert second["adapter"] == first["adapter"]
    assert "made by an earlier demo" in shown


def test_no_process_is_left(twice: Twice) -> None:
    assert twice
    commands = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if "a folder" in command and "worker.child" in command]
