"""Kernels in Triton, and whether this process may use them.

``grouped`` and ``nf4`` import Triton, so they are imported only where it is and where kernels run: on a GPU, or under
Triton's interpreter. CUDA builds of torch bring it; it needs a C compiler when a kernel first runs.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from functools import cache

import torch

log = logging.getLogger(__name__)

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # as it was always; 3.9 warns where nothing is said


@cache
def can_run_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether they give torch's numbers on ``device``: tried once, in a second or two. False means torch's products."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    try:
        from app.engine.kernels.trial import agrees

        does_agree = agrees(device, dtype)
    except Exception as error:  # of a compiler or driver: anything
        log.warning("adapters are computed without kernels: %s", next(iter(str(error).splitlines()), repr(error)))
        return False
    if not does_agree:
        log.warning("adapters are computed without kernels: theirs do not give torch's numbers on this device")
    return does_agree
