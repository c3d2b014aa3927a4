"""One run: send the sets, follow the job, collect its figures. A second call finds the job that the first one made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.core.presets import make_recipe
from app.core.records import digest_of
from benchmarks.quality.data import corpus_of, draw_sets
from benchmarks.quality.plan import Plan, Run
from benchmarks.quality.results import Result, Score, StageFigures, numbers_of, this_machine, this_version
from benchmarks.quality.service import Service
from benchmarks.quality.watch import Watch

ENDED = ("succeeded", "failed", "cancelled")
POLL_SECONDS = 0.5
LINE_SECONDS = 30.0  # how often a stage at work gets a line
MAX_TRIES = 100  # of a run that failed
_OF_STAGES = ("instructions_judged", "responses_judged", "contamination_checked", "dataset_ready", "training_done")
_MORE = ("about", "off_domain")  # of GET /jobs/{id}/metrics, beside the scores
_SCORE = tuple(Score.__dataclass_fields__)

Tell = Callable[[str], None]


class OutOfTime(Exception):
    """The minutes this call was given are over."""


@dataclass(frozen=True, slots=True)
class Order:
    """What all runs of one call share. ``deadline``: on the monotonic clock, or None."""

    plan: Plan
    plan_name: str
    data: Path
    folder: Path  # the service's data folder
    base: str
    count: Callable[[str], int]
    size: int | None
    deadline: float | None
    tell: Tell
    is_retrying: bool = False  # make a failed run anew

    def check_time(self) -> None:
        """Raise OutOfTime."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise OutOfTime


def carry_out(service: Service, run: Run, order: Order) -> Result:
    """The run's result. Raises OutOfTime, PlanError, Refused or ServerFailed."""
    recipe = order.plan.recipe_of(run, size=order.size)
    longest = order.plan.checked_recipe(run, size=order.size).max_length
    sets = draw_sets(order.data, run, order.plan, fits=lambda text: order.count(text) <= longest)
    if recipe.get("retrieval", "none") != "none":
        recipe["corpus"] = service.post_corpus(corpus_of(order.data, run))
    counts = {name: sum(getattr(taken, name) for taken in sets.taken.values()) for name in ("seeds", "items")}
    order.tell(f"{run.name}: {counts['seeds']} seeds, {counts['items']} {order.plan.evaluation} items")
    digest = digest_of(order.base, run.domain, make_recipe(recipe).model_dump_json(), sets.digest)
    for number in range(1, MAX_TRIES):
        job = service.specialize(run.domain, sets, recipe, key=f"quality-{digest}-{number}")
        if job["status"] not in ("failed", "cancelled") or not order.is_retrying:
            break
    order.tell(f"{run.name}: job {job['id']} {job['status']}")
    service.attend_to(job["id"])
    watch = Watch(order.folder / "seconds.json", job["id"], clock=time.monotonic)
    try:
        job = _follow(service, run, job, order, watch)
    finally:
        watch.keep()
    taken = {task: asdict(of_task) for task, of_task in sets.taken.items()}
    return _collect(service, run, job, order, taken, watch.seconds)


def _follow(service: Service, run: Run, job: dict[str, Any], order: Order, watch: Watch) -> dict[str, Any]:
    """Until the job has ended, a line for every stage that begins or ends, and now and then between."""
    shown: dict[str, str] = {}
    told_at = time.monotonic()
    while True:
        watch.see(job)
        is_due = time.monotonic() - told_at > LINE_SECONDS
        for stage in job["progress"]:
            is_new = shown.get(stage["stage"], "pending") != stage["status"]
            if is_new or (is_due and stage["status"] == "running"):
                shown[stage["stage"]] = stage["status"]
                told_at = time.monotonic()
                watch.keep()
                order.tell(f"{run.name}: {_line(stage)}")
        if job["status"] in ENDED:
            return job
        order.check_time()
        time.sleep(POLL_SECONDS)
        job = service.job(job["id"])


def _line(stage: dict[str, Any]) -> str:
    done = f"{stage['done']}/{stage['total']}" if stage["total"] else ""
    left = f"{stage['seconds_remaining']:.0f} s left" if stage["seconds_remaining"] is not None else ""
    spent = f"{stage['seconds']:.1f} s" if stage["status"] in ENDED and stage["seconds"] is not None else ""
    told = ", ".join(f"{name} {value:.4g}" for name, value in stage["detail"].items() if isinstance(value, int | float))
    return "  ".join(part for part in (f"{stage['stage']:<20}", stage["status"], done, left, spent, told) if part)


def _collect(
    service: Service,
    run: Run,
    job: dict[str, Any],
    order: Order,
    taken: dict[str, dict[str, int]],
    watched: Mapping[str, float],
) -> Result:
    events = list(service.events(job["id"]))
    body = service.metrics(job["id"]) if job["status"] == "succeeded" else {"job": job["id"], "metrics": []}
    verdict = next(_data(events, "gate_decided"), {})
    version, commit = this_version()
    error = job["error"]["message"][:200] if job["error"] else None
    return Result(
        name=run.name,
        plan=order.plan_name,
        domain=run.domain,
        base=order.base,
        base_loaded=service.base(),
        job=job["id"],
        status=job["status"],
        error=error,
        evaluation=order.plan.evaluation,
        seed=order.plan.seed,
        taken=taken,
        preset=job["recipe"]["preset"],
        recipe=job["recipe"],
        attempts=job["attempt"],
        stages=tuple(_stages(job, events, watched)),
        scores=tuple(Score(**{name: row[name] for name in _SCORE}) for row in body.pop("metrics")),
        chosen=next((data["stage"] for data in _data(events, "expert_chosen")), None),
        decision=verdict.get("decision"),
        reason=verdict.get("reason"),
        warnings=tuple(sorted({event["type"] for event in events if event["level"] == "warning"})),
        more={name: body[name] for name in _MORE if body.get(name)},
        machine=this_machine(),
        version=version,
        commit=commit,
    )


def _stages(job: dict[str, Any], events: list[dict[str, Any]], watched: Mapping[str, float]) -> Iterator[StageFigures]:
    for stage in job["progress"]:
        figures = numbers_of(stage["detail"])
        own = [event for event in events if event["stage"] == stage["stage"]]
        for event in own:
            if event["type"] in _OF_STAGES:
                figures |= numbers_of(event["data"])
        is_interrupted = sum(event["type"] == "stage_started" for event in own) > 1
        seconds = watched.get(stage["stage"], stage["seconds"]) if is_interrupted else stage["seconds"]
        yield StageFigures(stage["stage"], stage["status"], seconds, figures)


def _data(events: list[dict[str, Any]], type: str) -> Iterator[dict[str, Any]]:
    return (event["data"] for event in events if event["type"] == type)
