"""What a base runs on, in a few words that are the same for machines that are equally fast. Names no host."""

from __future__ import annotations

import platform
import time
from functools import cache
from pathlib import Path

import psutil

from app.core.cores import num_cores
from app.core.records import BaseInfo

_CPU_INFO = Path("/proc/cpuinfo")


def machine_of(base: BaseInfo) -> str:
    """For example "AMD EPYC, 2 cores; cpu, none, bfloat16": processor, graphics processor if any, number formats."""
    places = [f"{processor()}, {num_cores()} cores", *([base.device_name] if base.device_name else [])]
    return f"{'; '.join(places)}; {base.device}, {base.quantization}, {base.dtype}"


def process_age_seconds() -> float:
    """Since this process was started."""
    return max(0.0, time.time() - psutil.Process().create_time())


@cache
def processor() -> str:
    """Its name as the system tells it."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(named, platform.processor() or platform.machine())
