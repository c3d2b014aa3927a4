"""Where kernels run: on a CUDA device, or on tensors of the processor in a process under Triton's interpreter."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not here: pip install --no-deps triton"
)
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture(scope="package")
def device() -> torch.device:
    if IS_INTERPRETED:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here; test_interpreted.py runs these where Triton is")
    return torch.device("cuda")
