"""``python -m benchmarks.quality``: specializations on real data through the service, and a report of what was seen.

Whatever ended it, the next call with the same choices goes on: runs that are finished are not made again, a job under
way goes on from its last finished unit. The last line is JSON. A bar that is missed is a finding, not a failure; exit
code 1 says that a run failed or could not be made.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.processes import ended_by_signals
from app.settings import Settings
from benchmarks.quality.data import check_data
from benchmarks.quality.lengths import make_counter
from benchmarks.quality.plan import FOLDER, PlanError, read_plan
from benchmarks.quality.report import summary, write_report
from benchmarks.quality.results import Result, load, merge, save
from benchmarks.quality.run import Order, OutOfTime, carry_out
from benchmarks.quality.service import Refused, fetch_base, serving
from benchmarks.serving.processes import ServerFailed

DOCS = FOLDER.parents[1] / "docs"


@dataclass(slots=True)
class Call:
    """One call: what to run, where its files lie, and what became of it."""

    order: Order
    names: tuple[str, ...]  # of all the plan's runs, in their order
    folder: Path
    docs: Path
    results: list[Result]  # of this call and of earlier ones
    left: list[str]  # runs that have not ended
    faults: list[str] = field(default_factory=list)

    def keep(self, result: Result) -> None:
        """Into the results and the reports."""
        self.results = merge(self.results, result, order=self.names)
        self.left.remove(result.name)
        save(self.results, self.folder / "results.json")
        write_report(self.results, self.folder / "results.md")
        if self.order.plan.is_published:
            save(self.results, self.docs / "results" / f"{self.folder.name}.json")
            publish(self.docs)

    def summary(self) -> dict[str, object]:
        """The last line: of the runs that were asked for."""
        asked = {run.name for run in self.order.plan.runs}
        told = summary([result for result in self.results if result.name in asked and result.name not in self.left])
        return {"bench": "quality", "base": self.order.base, **told, "left": self.left, "faults": self.faults}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write, and say what was seen."""
    options = _parser().parse_args(arguments)
    began = time.monotonic()
    if options.report_only:
        publish(options.docs)
        return 0
    try:
        call = _prepare(options, began=began)
        with ended_by_signals():
            _run_all(call)
    except (PlanError, ServerFailed) as error:
        print(f"quality: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same call goes on")
        return 130
    for fault in call.faults:
        print(f"FAULT {fault}")
    print(json.dumps({**call.summary(), "seconds": round(time.monotonic() - began, 1)}), flush=True)
    return 1 if call.faults else 0


def publish(docs: Path) -> None:
    """docs/results.md, from all results that are kept beside it."""
    write_report(load(sorted((docs / "results").glob("*.json"))), docs / "results.md")


def _prepare(options: argparse.Namespace, *, began: float) -> Call:
    """Everything is looked at before the service starts. Raises PlanError and ServerFailed."""
    path = options.config if options.config.suffix else FOLDER / f"{options.config}.toml"
    plan = read_plan(path)
    chosen = plan.only(options.runs)
    for run in chosen.runs:
        recipe = plan.checked_recipe(run, size=options.size)
        check_data(options.data, run, retrieves=recipe.retrieval != "none")
    base = options.base or plan.base
    folder = options.folder.absolute() / f"{Path(base).name}-{path.stem}"

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - began:6.0f} s] {line}", flush=True)

    is_fake = plan.settings.get("engine", os.environ.get("SELFSPEC_ENGINE")) == "fake"
    order = Order(
        plan=chosen,
        plan_name=path.stem,
        data=options.data,
        folder=folder,
        base=base,
        count=make_counter(None if is_fake else fetch_base(base)),
        size=options.size,
        deadline=began + 60 * options.minutes if options.minutes else None,
        tell=tell,
        is_retrying=options.retry,
    )
    names = tuple(run.name for run in plan.runs)
    left = [run.name for run in chosen.runs]
    return Call(order, names, folder, options.docs, load([folder / "results.json"]), left)


def _run_all(call: Call) -> None:
    """Run after run; what stands in the way of one is noted, and the next is made."""
    order = call.order
    try:
        with serving(call.folder, base=order.base, settings=order.plan.settings) as service:
            order.tell(f"base {order.base}: {service.base()}")
            for run in order.plan.runs:
                order.check_time()
                try:
                    result = carry_out(service, run, order)
                except (PlanError, Refused) as error:
                    call.faults.append(f"{run.name}: {error}")
                    continue
                call.keep(result)
                if result.status != "succeeded":
                    call.faults.append(f"{run.name}: job {result.job} {result.status}: {result.error}")
    except OutOfTime:
        order.tell("the minutes are over; the same call goes on")
    except ServerFailed as error:
        call.faults.append(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("cpu"), help="a TOML file, or cpu, gpu, smoke")
    parser.add_argument(
        "--data", type=Path, default=_default_data(), help="folder of <domain>/<task>/{train,test}.jsonl"
    )
    parser.add_argument("--base", help="catalogue name, Hugging Face id or folder; by default the config's")
    parser.add_argument("--size", type=int, help="generated examples of every run, in place of the config's")
    parser.add_argument("--runs", nargs="+", help="only these of the config's runs")
    parser.add_argument("--minutes", type=float, help="stop after so many; the next call goes on")
    parser.add_argument("--retry", action="store_true", help="make runs anew that failed")
    folder = Settings().data_dir / "quality"
    parser.add_argument("--folder", type=Path, default=folder, help=f"the services' data folders (default: {folder})")
    parser.add_argument(
        "--docs", type=Path, default=DOCS, help="where results.md and results/ go, if the config says so"
    )
    parser.add_argument("--report-only", action="store_true", help="write docs/results.md anew from docs/results")
    return parser


def _default_data() -> Path:
    return Path(os.environ.get("SELFSPEC_DATA") or DOCS.parents[1] / "shared" / "data")


if __name__ == "__main__":
    sys.exit(main())
