"""``make test``: every tier this machine can run but the chaos tier; the last line is JSON.

Plain ``pytest`` runs the default tier only, on two cores: no weights, no network, about two minutes. The dearer tiers
follow one test at a time, for each of them uses all cores.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter

import pytest

TIERS: dict[str, tuple[str, ...]] = {"default": (), "model": ("-m", "model", "-n", "0")}
FINE = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)  # a choice of tests may leave a tier empty


class Tally:
    """Counts what became of each test."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test counts once: by its call, or by the set-up that skipped or broke it."""
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1


def main() -> int:
    """Run the tiers; 1 if a test failed or none ran."""
    tally, seconds, codes = Tally(), dict[str, float](), []
    for tier, arguments in TIERS.items():
        started = time.monotonic()
        codes.append(pytest.main([*arguments, *sys.argv[1:]], plugins=[tally]))
        seconds[tier] = round(time.monotonic() - started, 1)
    counts = {name: tally.counts[name] for name in ("passed", "failed", "skipped")}
    print(json.dumps({"test": {**counts, "seconds": seconds}}), flush=True)
    return int(not counts["passed"] or any(code not in FINE for code in codes))


if __name__ == "__main__":
    sys.exit(main())
