"""The GPUs that this process may use, found without loading torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_DRIVER = Path("/proc/driver/nvidia/gpus")  # a folder each
_DEVICES = Path("/dev")


def visible_gpus(
    *, environment: Mapping[str, str] = os.environ, driver: Path = _DRIVER, devices: Path = _DEVICES
) -> tuple[str, ...]:
    """Their names for CUDA_VISIBLE_DEVICES, which bounds them if it is set."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        hidden = next((place for place, name in enumerate(names) if name in ("", "-1")), len(names))
        return tuple(names[:hidden])  # CUDA sees none behind one that is not there
    count = len(list(driver.iterdir())) if driver.is_dir() else len(list(devices.glob("nvidia[0-9]*")))
    return tuple(str(number) for number in range(count))
