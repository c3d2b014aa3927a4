"""``python -m tests.chaos``: see docs/reliability.md. The last line is JSON; exit code 1: there were faults."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from app.processes import ended_by_signals
from tests.chaos.plan import make_plan
from tests.chaos.references import make_references
from tests.chaos.report import write_page
from tests.chaos.run import Outcome, run
from tests.chaos.stacks import STACKS, Unavailable

MINUTES = 15.0
ENDING_SECONDS = 60.0  # kept of the minutes for asking the adapters and for the checks
MAX_TOLD = 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Run on every stack there is, and say what was seen."""
    options = _parser().parse_args(arguments)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="selfspec-chaos-", dir=options.folder))
    try:
        with ended_by_signals():
            outcomes, skipped = _run_all(options, folder, began=began)
    except KeyboardInterrupt:
        print("stopped")
        return 130
    faults = [f"{outcome.stack}: {fault}" for outcome in outcomes for fault in outcome.faults]
    for fault in faults[:MAX_TOLD]:
        print(f"FAULT {fault}")
    if faults:
        print(f"everything that was left is in {folder}")
    else:
        shutil.rmtree(folder)
        if options.write:
            write_page(outcomes, seed=options.seed)
    told = {outcome.stack: outcome.counts() for outcome in outcomes}
    seconds = round(time.monotonic() - began, 1)
    counts = {"seed": options.seed, "runs": told, "skipped": skipped, "faults": faults[:MAX_TOLD], "seconds": seconds}
    print(json.dumps({"chaos": counts}), flush=True)
    return int(bool(faults) or not outcomes)


def _run_all(options: argparse.Namespace, folder: Path, *, began: float) -> tuple[list[Outcome], list[str]]:
    """The stacks share the minutes evenly; what one leaves goes to the next."""

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - began:4.0f} s] {line}", flush=True)

    outcomes, skipped = list[Outcome](), list[str]()
    for number, name in enumerate(options.stacks):
        share = len(range(number, options.jobs, len(options.stacks)))
        left = options.minutes * 60 - (time.monotonic() - began)
        deadline = time.monotonic() + left / (len(options.stacks) - number) - ENDING_SECONDS
        try:
            with STACKS[name](folder / name) as stack:
                plan = make_plan(options.seed + number, share, stack.acts)
                tell(f"{name}: {share} jobs and {len(plan.troubles)} troubles, seed {plan.seed}")
                references = make_references(plan.orders, folder / f"{name}-undisturbed")
                outcomes.append(run(stack, plan, references, folder=folder / name, deadline=deadline, tell=tell))
        except Unavailable as error:
            tell(f"skipped: {name}: {error}")
            skipped.append(name)
    return outcomes, skipped


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="what happens and when; the same number, the same plan")
    parser.add_argument("--jobs", type=int, default=200, help="over all stacks")
    parser.add_argument("--stacks", nargs="+", choices=list(STACKS), default=list(STACKS))
    parser.add_argument("--minutes", type=float, default=MINUTES, help="jobs that have not ended by then are faults")
    parser.add_argument("--folder", type=Path, help="where the services' data folders go; by default the temporary")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/reliability.md if all is well")
    return parser


if __name__ == "__main__":
    sys.exit(main())
