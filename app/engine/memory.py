"""How much memory there is, so that caches can take a share of it."""

from __future__ import annotations

import psutil
import torch


def free_bytes(device: torch.device | None = None) -> int:
    """Bytes that can still be allocated on ``device``; None: in host memory."""
    if device is not None and device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return int(psutil.virtual_memory().available)
