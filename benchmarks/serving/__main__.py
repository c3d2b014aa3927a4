"""``python -m benchmarks.serving``: measures the service and its peers; the last line is JSON.

Exit code 1 if the service failed a request or answered wrongly. A bar that is missed is a finding, not a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import httpx

from app.bootstrap import base_folder
from app.core.cores import num_cores
from app.engine.catalogue import CATALOGUE
from app.processes import ended_by_signals
from app.settings import Settings
from benchmarks.serving import report
from benchmarks.serving.adapters import write_adapters
from benchmarks.serving.engines.llamacpp import LlamaCpp
from benchmarks.serving.engines.peft import Peft
from benchmarks.serving.engines.selfspec import Selfspec
from benchmarks.serving.engines.vllm import Vllm
from benchmarks.serving.plan import FULL, QUICK, Plan
from benchmarks.serving.processes import ServerFailed
from benchmarks.serving.run import Bench, Results
from benchmarks.serving.target import Engine, Kit
from benchmarks.serving.workload import EXPERTS

BASE_NAME = "smollm2-135m-instruct"
ENGINES = {"selfspec": Selfspec, "peft": Peft, "llamacpp": LlamaCpp, "vllm": Vllm}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and say whether the service did its work."""
    options = _parser().parse_args(arguments)
    seed = options.seed or secrets.token_hex(4)
    kit = make_kit(threads=options.threads)
    plan = _plan(options)
    began = time.monotonic()
    print(f"seed {seed}; {kit.threads} threads; logs and files: {kit.folder}", flush=True)
    engines: list[Engine] = [ENGINES[name](kit) for name in options.engines]

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - began:6.0f} s] {line}", flush=True)

    try:
        with ended_by_signals():
            results = Bench(kit, plan, seed=seed, tell=tell).run(engines)
    except KeyboardInterrupt:
        print("stopped")
        return 130
    except (ServerFailed, httpx.HTTPError, ValueError) as error:
        print(f"the service does not work: {error}", file=sys.stderr)
        return 1
    _keep(results, kit.folder / "results" / f"{time.strftime('%Y%m%d-%H%M%S')}.json")
    _show(results)
    facts = {"seed": seed, "threads": kit.threads, "seconds": round(time.monotonic() - began, 1)}
    print(json.dumps({"bench": "serving", **report.summary(results), **facts}), flush=True)
    return 1 if report.problems(results) else 0


def make_kit(*, threads: int) -> Kit:
    """The base, fetched once, and the adapters, written once."""
    settings = Settings(base=BASE_NAME)
    subprocess.run(
        [sys.executable, "-m", "app.cli", "models", "pull"], check=True, env={**os.environ, "SELFSPEC_BASE": BASE_NAME}
    )
    folder = settings.data_dir.absolute() / "bench"
    model, base_id = base_folder(settings).absolute(), CATALOGUE[BASE_NAME].hub_id
    adapters = write_adapters(EXPERTS, folder / "adapters", model=model, base=base_id)
    return Kit(model=model, base_id=base_id, adapters=adapters, folder=folder, threads=threads)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="concurrency 32 only, 32 shorter requests, float32, one round"
    )
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="which take part")
    parser.add_argument("--points", nargs="+", help="only these points of the plan, as mixed@32")
    parser.add_argument("--dtypes", nargs="+", help="only these dtypes, each engine as it comes; no trials")
    parser.add_argument("--rounds", type=int, help="how often each point is measured")
    parser.add_argument("--requests", type=int, help="requests a measurement")
    parser.add_argument("--new-tokens", type=int, help="tokens each request writes")
    parser.add_argument("--threads", type=int, default=num_cores(), help="of every engine (default: one a core)")
    parser.add_argument("--seed", help="of the prompts; by default new ones each run")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    plan = QUICK if options.quick else FULL
    sizes = plan.sizes
    sizes = replace(
        sizes, requests=options.requests or sizes.requests, new_tokens=options.new_tokens or sizes.new_tokens
    )
    plan = replace(plan, sizes=sizes, rounds=options.rounds or plan.rounds)
    if options.dtypes:
        plan = replace(plan, dtypes=tuple(options.dtypes))
    return plan if options.points is None else plan.only(options.points)


def _keep(results: Results, path: Path) -> None:
    """Every measurement, for later."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(results), indent=1), encoding="utf-8")


def _show(results: Results) -> None:
    for line in report.table(report.rows_of(results.measurements)):
        print(line)
    for heading, verdicts in (("alone and in a crowd", results.in_crowd), ("alone and PEFT", results.beside_peft)):
        for name, verdict in verdicts.items():
            print(
                f"{heading}: {name}: of {verdict.asked} answers {verdict.same} the same, "
                f"{verdict.drifted} drifted, {verdict.wrong} wrong"
            )
    summary = report.summary(results)
    for bar, met in summary["bars"].items():
        print(f"{'not measured' if met is None else 'met' if met else 'MISSED':>12}  {bar}")
    for problem in summary["problems"]:
        print(f"PROBLEM {problem}")


if __name__ == "__main__":
    sys.exit(main())
