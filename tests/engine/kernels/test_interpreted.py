"""test_numbers.py without a GPU, under Triton's interpreter: in a process of its own, which starts knowing it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.engine.kernels.conftest import needs_triton
from tests.import_rule import ROOT


@needs_triton
def test_the_kernels_give_the_same_numbers_under_the_interpreter() -> None:
    numbers = Path(__file__).with_name("test_numbers.py").relative_to(ROOT)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", str(numbers)],
        env={**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert re.search(r"^\d+ passed, 1 skipped in ", ran.stdout, re.MULTILINE), ran.stdout + ran.stderr
