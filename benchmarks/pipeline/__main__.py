"""``python -m benchmarks.pipeline``: how fast examples are generated, adapters trained and repeats found.

Every part is a program of its own (``python -m benchmarks.pipeline.generation`` …) and runs alone; nothing else should
run beside it. About ten minutes on two cores. The last line is JSON; a bar that is missed is a finding, not a failure;
exit code 1 says that a part did not end well.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from app.processes import ended_by_signals
from benchmarks.pipeline.report import summary

PARTS = ("generation", "training", "novelty")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts and tell the bars."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts")
    parser.add_argument("--prompts", type=int, default=64, help="instruction prompts of each kind of generating")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    told: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    try:
        with ended_by_signals():
            for part in options.only:
                print(f"— {part}", flush=True)
                more = ["--prompts", str(options.prompts)] if part == "generation" else []
                try:
                    told[part] = run_part(part, more)
                except ValueError as error:
                    missing[part] = str(error)
    except KeyboardInterrupt:
        print("stopped")
        return 130
    found = summary(told, missing=missing)
    for bar, is_met in found["bars"].items():
        print(f"{'not measured' if is_met is None else 'met' if is_met else 'MISSED':>12}  {bar}")
    print(json.dumps({**found, "seconds": round(time.monotonic() - began, 1)}), flush=True)
    return 1 if missing else 0


def run_part(part: str, arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Its last line; the others are shown as they come. Raises ValueError if there is none."""
    command = [sys.executable, "-u", "-m", f"benchmarks.pipeline.{part}", *arguments]
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if last:
                    print(last, flush=True)
                last = line.rstrip()
        except BaseException:
            process.terminate()
            raise
    try:
        told: dict[str, Any] = json.loads(last)
    except ValueError:
        raise ValueError(f"it ended with exit code {process.returncode} and without figures: {last[:200]}") from None
    return told


if __name__ == "__main__":
    sys.exit(main())
