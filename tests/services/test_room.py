"""How much memory there is: what a control group leaves, whatever the machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.services.room import gpu_room, host_room


def group(folder: Path, *, most: str, used: int, cache: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cache}\n")


@pytest.fixture
def own_group(tmp_path: Path) -> Path:
    path = tmp_path / "cgroup"
    path.write_text("0::/pod/container\n")
    return path


def test_without_a_group_the_machine_counts(tmp_path: Path) -> None:
    room = host_room(groups=tmp_path, own_group=tmp_path / "none")
    assert 0 < room.free <= room.total


def test_the_narrowest_group_counts(tmp_path: Path, own_group: Path) -> None:
    """The container may use 1000 bytes, 600 of which are taken and 100 of those only cache; its pod has 300 left."""
    groups = tmp_path / "groups"
    group(groups / "pod" / "container", most="1000", used=600, cache=100)
    assert host_room(groups=groups, own_group=own_group).free == 500
    group(groups / "pod", most="5000", used=4700)
    room = host_room(groups=groups, own_group=own_group)
    assert (room.free, room.total) == (300, 1000)


def test_a_group_without_a_limit_bounds_nothing(tmp_path: Path, own_group: Path) -> None:
    groups = tmp_path / "groups"
    group(groups / "pod" / "container", most="max", used=600)
    assert host_room(groups=groups, own_group=own_group).total > 10_000


def test_figures_are_told_in_words() -> None:
    room = host_room()
    assert str(room) == f"{room.free / 1e9:.1f} of {room.total / 1e9:.1f} GB memory free"


def test_a_gpu_that_nobody_can_tell_of_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_room("0") is None


def test_a_gpu_is_asked_of_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text('#!/bin/sh\ntest "$4" = 1 && echo "100, 4000"\n')
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    room = gpu_room("1")
    assert room is not None
    assert (room.free, room.total) == (100 * 1024**2, 4000 * 1024**2)
    assert gpu_room("0") is None
