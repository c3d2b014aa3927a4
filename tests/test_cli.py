"""The command: what is known to go wrong is one line and exit code 1, never a traceback."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.cli import explain
from app.core.errors import SetupError
from app.settings import Settings


def selfspec(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a person does."""
    command = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)


def test_help_names_every_command() -> None:
    ended = selfspec("--help")
    assert ended.returncode == 0
    for command in ("demo", "serve", "migrate", "api", "worker", "models", "clean", "doctor"):
        assert command in ended.stdout


def test_a_setting_that_cannot_be_used_is_named() -> None:
    ended = selfspec("serve", SELFSPEC_PORT="many")
    assert ended.returncode == 1
    assert ended.stderr.startswith("selfspec: SELFSPEC_PORT: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_port_in_use_is_one_line(command: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        ended = selfspec(command, SELFSPEC_PORT=port, SELFSPEC_DATA_DIR=str(tmp_path / "var"))
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"selfspec: port {port} on 127.0.0.1 is in use")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (SetupError("the machine says no"), "the machine says no"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), "the disk is full: /data/x could not be written"),
        (OSError(errno.EADDRINUSE, "Address already in use"), "the port is in use"),
        (PermissionError(errno.EACCES, "Permission denied", "/data"), "/data: Permission denied"),
    ],
)
def test_known_errors_become_a_line(error: Exception, line: str) -> None:
    assert (explain(error) or "").startswith(line)


def test_unknown_errors_stay_what_they_are() -> None:
    assert explain(RuntimeError("a bug")) is None


def test_all_faulty_settings_are_told_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(port=0, max_batch=0)
    line = explain(caught.value) or ""
    assert "SELFSPEC_PORT: " in line
    assert "SELFSPEC_MAX_BATCH: " in line
