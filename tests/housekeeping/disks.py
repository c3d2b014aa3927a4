"""Small disks for tests: a mounted file system that can be filled, emptied, made read-only and writable again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_FILLER = "filler"


class SmallDisk:
    """One that is mounted at ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Leave not one byte."""
        with suppress(OSError), (self.folder / _FILLER).open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def empty(self) -> None:
        """Take the filler away."""
        (self.folder / _FILLER).unlink(missing_ok=True)

    def forbid(self) -> None:
        """Let nobody write; refused by the system while a file is open for writing."""
        _run("mount", "-o", "remount,ro", str(self.folder))

    def allow(self) -> None:
        """Let everybody write again."""
        _run("mount", "-o", "remount,rw", str(self.folder))

    def files(self) -> list[str]:
        """What lies there, but for the filler and empty folders."""
        found = (path for path in self.folder.rglob("*") if path.is_file() and path.name != _FILLER)
        return sorted(path.relative_to(self.folder).as_posix() for path in found)


@contextmanager
def small_disk(folder: Path, *, num_bytes: int = 4_000_000) -> Iterator[SmallDisk]:
    """Mount one; skips the test where mounting is not permitted."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        _run("umount", "--lazy", str(folder))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)
