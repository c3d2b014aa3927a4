"""``make test``: every tier this machine can run but the chaos tier; the last line is JSON.

Plain ``pytest`` runs the default tier only, on two cores: no weights, no servers, no network, some three minutes. The
service tier follows where PostgreSQL, Redis and RabbitMQ answer; what is not there is said in one line, and fails where
SELFSPEC_REQUIRE_SERVICES=1. The browser tier is skipped without a Chromium. The model tier comes last, one test at a
time, for each uses all cores.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter

import pytest

from tests import servers

TIERS: dict[str, tuple[str, ...]] = {
    "default": (),
    "service": ("-m", "service and not chaos"),
    "browser": ("-m", "browser", "-n", "0"),
    "model": ("-m", "model", "-n", "0"),
}
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
        if tier == "service":
            print(servers.report(), flush=True)
        started = time.monotonic()
        codes.append(pytest.main([*arguments, *sys.argv[1:]], plugins=[tally]))
        seconds[tier] = round(time.monotonic() - started, 1)
    counts = {name: tally.counts[name] for name in ("passed", "failed", "skipped")}
    print(json.dumps({"test": {**counts, "seconds": seconds}}), flush=True)
    return int(not counts["passed"] or any(code not in FINE for code in codes))


if __name__ == "__main__":
    sys.exit(main())
