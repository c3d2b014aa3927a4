"""``make test``: every tier this machine can run but the chaos tier; the last line is JSON.

Plain ``pytest`` runs the default tier only: no weights, no network, under two minutes.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter

import pytest


class Tally:
    """Counts what became of each test."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test counts once: by its call, or by the set-up that skipped or broke it."""
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1


def main() -> int:
    """Run the tests; pytest's exit code."""
    tally, started = Tally(), time.monotonic()
    code = pytest.main(["-m", "not chaos", *sys.argv[1:]], plugins=[tally])
    counts = {name: tally.counts[name] for name in ("passed", "failed", "skipped")}
    print(json.dumps({"test": {**counts, "seconds": round(time.monotonic() - started, 1)}}), flush=True)
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
