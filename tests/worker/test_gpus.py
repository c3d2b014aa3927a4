"""Which GPUs a worker deals out to its slots, seen without torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.gpus import visible_gpus


@pytest.mark.parametrize(
    ("variable", "seen"),
    [
        (None, ("0", "1")),
        ("1", ("1",)),
        ("3, 1", ("3", "1")),
        ("", ()),
        ("-1", ()),
        ("0,-1,1", ("0",)),
        ("MIG-a,MIG-b", ("MIG-a", "MIG-b")),
    ],
)
def test_cuda_is_believed(tmp_path: Path, variable: str | None, seen: tuple[str, ...]) -> None:
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    environment = {} if variable is None else {"CUDA_VISIBLE_DEVICES": variable}
    assert visible_gpus(environment=environment, driver=tmp_path, devices=tmp_path) == seen


def test_without_the_drivers_folder_its_devices_are_counted(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "tty0"):
        (tmp_path / name).touch()
    assert visible_gpus(environment={}, driver=tmp_path / "none", devices=tmp_path) == ("0", "1")
    assert visible_gpus(environment={}, driver=tmp_path / "none", devices=tmp_path / "none") == ()
