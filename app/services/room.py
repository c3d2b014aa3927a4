"""How much memory a job could have: of this machine, of the control group it is confined to, or of one GPU.

Loads no torch: a worker asks before each job.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")
_GPU_QUERY = ("nvidia-smi", "--query-gpu=memory.free,memory.total", "--format=csv,noheader,nounits")
_GPU_SECONDS = 10.0  # a driver that is not kept loaded takes some
_MIB = 1024**2


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes; ``name`` says of what, for people."""

    name: str
    free: int
    total: int

    def __str__(self) -> str:
        return f"{self.free / 1e9:.1f} of {self.total / 1e9:.1f} GB {self.name} free"


def host_room(*, groups: Path = _GROUPS, own_group: Path = _OWN_GROUP) -> Room:
    """Memory of this machine, or of the narrowest control group (version 2) around this process."""
    memory = psutil.virtual_memory()
    limits = list(_group_limits(groups, own_group))
    free = min([int(memory.available), *(free for free, _ in limits)])
    return Room("memory", max(0, free), min([int(memory.total), *(total for _, total in limits)]))


def gpu_room(gpu: str) -> Room | None:
    """Memory of one GPU, by its number or identifier; None where nvidia-smi cannot tell."""
    try:
        told = subprocess.check_output([*_GPU_QUERY, "-i", gpu], timeout=_GPU_SECONDS, stderr=subprocess.DEVNULL)
        free, total = (int(number) * _MIB for number in told.split(b","))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Room(f"memory of GPU {gpu}", free, total)


def _group_limits(groups: Path, own_group: Path) -> Iterator[tuple[int, int]]:
    """Free and total bytes of every group that has a limit, from this process's own to the outermost."""
    try:
        lines = own_group.read_text().splitlines()
    except OSError:
        return
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    for folder in (groups / own, *(groups / own).parents):
        if folder != groups and groups not in folder.parents:
            return
        try:
            total, used = int((folder / "memory.max").read_text()), int((folder / "memory.current").read_text())
        except (OSError, ValueError):  # the outermost has no such file; "max" is no limit
            continue
        yield total - used + _file_cache(folder), total


def _file_cache(folder: Path) -> int:
    """Bytes that are counted as used and are given up when they are needed."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
