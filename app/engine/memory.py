"""How much memory there is, so that caches can take a share of it."""

from __future__ import annotations

import resource
import sys

import psutil
import torch


def free_bytes(device: torch.device | None = None) -> int:
    """Bytes that can still be allocated on ``device``; None: in host memory."""
    if device is not None and device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return int(psutil.virtual_memory().available)


def peak_bytes(device: torch.device) -> int:
    """The most that was in use so far: on the device on CUDA, else by the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
