"""``make check``: lint, formatting, types and the import rule; every check runs, and the last line is JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable

from tests.import_rule import ROOT, violations

SOURCES = ("app", "worker", "migrations", "benchmarks", "tests")


def tool(*arguments: str) -> Callable[[], bool]:
    """A check that is another program's."""
    return lambda: subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT).returncode == 0


def import_rule() -> bool:
    """Print what breaks the import rule."""
    found = violations()
    for line in found:
        print(line)
    return not found


CHECKS: dict[str, Callable[[], bool]] = {
    "lint": tool("ruff", "check", "."),
    "format": tool("ruff", "format", "--check", "."),
    "types": tool("mypy", *SOURCES),
    "imports": import_rule,
}


def main() -> int:
    """Run all checks; exit code 1 if any fails."""
    seconds: dict[str, float] = {}
    failed = []
    for name, check in CHECKS.items():
        print(f"check: {name} …", flush=True)
        started = time.monotonic()
        if not check():
            failed.append(name)
        seconds[name] = round(time.monotonic() - started, 1)
    print(json.dumps({"check": {"seconds": seconds, "failed": failed}}), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
