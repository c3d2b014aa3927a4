"""``python -m benchmarks.estimates``: how far estimates are off, over jobs of different sizes.

Every job is estimated just before it is sent, to a service started for this with an empty data folder: the first by
assumptions, each later one by those before it. A ratio is actual by estimated seconds; how far a set of them is off is
its median and its worst, as factors of at least 1 (0.5 and 2 are both 2). Stages under a second are left out of those:
they are told in hundredths. Nothing else should run beside it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from app.processes import ended_by_signals
from app.settings import Settings
from benchmarks.quality.run import ENDED
from benchmarks.quality.service import serving

EXAMPLES = Path(__file__).parents[1] / "examples"
SIZES = (8, 24, 60, 12, 40, 90)  # generated examples of each job
MOST_EVALUATED = 40  # items
LOOK_SECONDS, LEAST_SECONDS = 0.5, 1.0


@dataclass(frozen=True, slots=True)
class Timed:
    """What was told before, and what came."""

    name: str  # of a stage, or "job"
    estimated: float
    low: float
    high: float
    actual: float
    num_jobs: int  # that the estimate was measured on

    @property
    def ratio(self) -> float:
        return self.actual / self.estimated

    @property
    def off(self) -> float:
        """How many times, one way or the other."""
        return max(self.ratio, 1 / self.ratio) if self.ratio > 0 else float("inf")


@dataclass(frozen=True, slots=True)
class Trial:
    """One job."""

    examples: int
    how: str
    job: Timed
    stages: tuple[Timed, ...]

    def row(self) -> dict[str, Any]:
        stages = {each.name: _rounded(each) for each in self.stages}
        return {"examples": self.examples, "how": self.how, "job": _rounded(self.job), "stages": stages}


def try_job(http: httpx.Client, body: dict[str, Any]) -> Trial:
    """Estimate, send, wait. Raises RuntimeError if the job does not succeed."""
    told = _json(http.post("/specialize/estimate", json=body))
    job = _json(http.post("/specialize", json=body))
    while job["status"] not in ENDED:
        time.sleep(LOOK_SECONDS)
        job = _json(http.get(f"/jobs/{job['id']}"))
    if job["status"] != "succeeded":
        raise RuntimeError(f"job {job['id']} {job['status']}: {(job['error'] or {}).get('message')}")
    took = {run["stage"]: run["seconds"] or 0.0 for run in job["progress"]}
    whole = datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["started_at"])
    stages = tuple(_timed(stage["stage"], stage["time"], took[stage["stage"]]) for stage in told["stages"])
    examples = body["recipe"]["num_examples"]
    return Trial(examples, told["basis"]["how"], _timed("job", told["time"], whole.total_seconds()), stages)


def summary(trials: Sequence[Trial]) -> dict[str, Any]:
    """The first job, which nothing was known of, by itself; the others together, and their stages by name."""
    first, others = trials[0], trials[1:]
    stages = [stage for trial in others for stage in trial.stages if stage.actual >= LEAST_SECONDS]
    names = dict.fromkeys(stage.name for stage in stages)
    return {
        "bench": "estimates",
        "first_job_off": round(first.job.off, 2),
        "jobs": _off(trial.job for trial in others),
        "stages": _off(stages),
        "by_stage": {name: _off(stage for stage in stages if stage.name == name) for name in names},
        "trials": [trial.row() for trial in trials],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the jobs and tell; how far off they were is a finding, not a failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimates")
    parser.add_argument("--base", default=Settings().base)
    parser.add_argument("--engine", choices=["real", "fake"], default="real")
    parser.add_argument("--domain", choices=sorted(path.name for path in EXAMPLES.iterdir()), default="finance")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="generated examples of each job")
    parser.add_argument("--recipe", type=json.loads, default={}, help="knobs on top of the preset quick, as JSON")
    options = parser.parse_args(arguments)
    trials = []
    with ended_by_signals(), tempfile.TemporaryDirectory(prefix="selfspec-estimates-") as folder:
        settings = {"engine": options.engine}
        with serving(Path(folder), base=options.base, settings=settings) as service:
            for number, size in enumerate(options.sizes):
                recipe = {"preset": "quick", "promotion": "manual", **options.recipe, "num_examples": size}
                recipe |= {"max_prompts": 4 * size, "seed": number, "min_yield": 0}
                trials.append(try_job(service.http, {**_sets(options.domain), "recipe": recipe}))
                _show(trials[-1])
    print(json.dumps(summary(trials)), flush=True)
    return 0


def _sets(domain: str) -> dict[str, Any]:
    seeds, evaluation = (
        [json.loads(line) for line in (EXAMPLES / domain / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in ("seeds", "evaluation")
    )
    return {"domain": domain, "seeds": seeds, "evaluation": evaluation[:: max(1, len(evaluation) // MOST_EVALUATED)]}


def _json(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_error:
        raise RuntimeError(f"{answer.request.url.path} answered {answer.status_code}: {answer.text[:500]}")
    body: dict[str, Any] = answer.json()
    return body


def _timed(name: str, time: dict[str, Any], actual: float) -> Timed:
    return Timed(name, time["seconds"], time["low"], time["high"], actual, time["num_jobs"])


def _off(timed: Iterable[Timed]) -> dict[str, Any]:
    known = list(timed)
    if not known:
        return {"n": 0, "median_off": None, "worst_off": None, "within_range": None}
    offs = [each.off for each in known]
    within = sum(each.low <= each.actual <= each.high for each in known)
    return {
        "n": len(known),
        "median_off": round(median(offs), 2),
        "worst_off": round(max(offs), 2),
        "within_range": round(within / len(known), 2),
    }


def _rounded(timed: Timed) -> dict[str, Any]:
    numbers = {name: round(value, 2) for name, value in asdict(timed).items() if isinstance(value, float)}
    return {**numbers, "num_jobs": timed.num_jobs, "ratio": round(timed.ratio, 2)}


def _show(trial: Trial) -> None:
    print(f"{trial.examples} examples, {trial.how}", flush=True)
    for each in (*trial.stages, trial.job):
        told = f"{each.estimated:8.1f} s told ({each.low:.1f} to {each.high:.1f})"
        print(f"  {each.name:<22} {told}, {each.actual:8.1f} s taken: {each.ratio:.2f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
