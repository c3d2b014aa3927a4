"""One run: a service on one stack, its callers, and what is done to it until every job has ended; then the checks."""

from __future__ import annotations

import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from pathlib import Path

import httpx
import psutil

from app.bootstrap import build_celery, migrate
from app.serve import local_url
from app.settings import Settings
from app.storage.artifacts import ArtifactStore
from app.storage.job_queue import JobQueue
from tests.chaos.acts import Saboteur
from tests.chaos.answers import check_answers
from tests.chaos.callers import Desk, Visit
from tests.chaos.checks import Found, check_all, find, num_takeovers, write_story
from tests.chaos.look import Lookout, Seen
from tests.chaos.plan import Plan
from tests.chaos.processes import Keeper
from tests.chaos.references import Reference
from tests.chaos.stacks import Stack
from tests.services.house import BASE

LEASE_SECONDS = 4.0
AHEAD = 8  # jobs under way; the next is posted when there are fewer
LOOK_SECONDS = 0.05
HTTP_SECONDS = 20.0
READY_SECONDS = 60.0
END_SECONDS = 10.0  # of the last job's process
TOLD_EVERY_SECONDS = 15.0
SETTINGS: dict[str, object] = {
    "engine": "fake",
    "base": BASE,
    "lease_seconds": LEASE_SECONDS,
    "heartbeat_seconds": 0.5,
    "look_seconds": 1.0,
    "job_memory_bytes": 0,  # whatever else runs on this machine
    "drain_s": 1.0,
    "warm_up": False,
}


@dataclass(slots=True)
class Outcome:
    """What one run showed."""

    stack: str
    jobs: Counter[str] = field(default_factory=Counter)  # by status
    acts: Counter[str] = field(default_factory=Counter)
    restarts: Counter[str] = field(default_factory=Counter)  # of the service's processes
    answers: Counter[str] = field(default_factory=Counter)  # of the API, by status
    takeovers: int = 0  # attempts that began because the one before was lost
    attempts: int = 0  # most of one job
    rows: int = 0  # of datasets, compared with the undisturbed ones
    adapters: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, object]:
        """For the last line: the faults as their number."""
        told = {name.name: getattr(self, name.name) for name in fields(self) if name.name != "stack"}
        return {**told, "faults": len(self.faults)}


@dataclass(frozen=True, slots=True)
class Place:
    """Where it all happens."""

    stack: Stack
    settings: Settings
    keeper: Keeper
    http: httpx.Client
    lookout: Lookout
    tell: Callable[[str], None]


def run(
    stack: Stack,
    plan: Plan,
    references: Mapping[str, Reference],
    *,
    folder: Path,
    deadline: float,
    tell: Callable[[str], None],
) -> Outcome:
    """``folder``: the service's data folder. ``deadline`` in monotonic seconds: a job that is late is a fault."""
    began = time.monotonic()
    chosen = {**SETTINGS, "data_dir": folder.absolute(), "port": _free_port(), **stack.settings}
    settings = Settings(**chosen)  # type: ignore[arg-type]
    migrate(settings)
    with (
        Keeper(settings, {f"SELFSPEC_{name.upper()}": str(value) for name, value in chosen.items()}) as keeper,
        httpx.Client(base_url=local_url(settings), timeout=HTTP_SECONDS, trust_env=False) as http,
        closing(JobQueue(build_celery(settings))) as queue,
    ):
        place = Place(stack, settings, keeper, http, Lookout(settings.resolved_database_url), tell)
        desk = Desk(http)
        visits = [Visit(order, desk) for order in plan.orders]
        saboteur = Saboteur(keeper, stack, queue, chance=random.Random(plan.seed), lease=LEASE_SECONDS)
        _live(place, plan, visits, saboteur, deadline=deadline)
        outcome = _end(place, visits, references)
        outcome.faults += keeper.faults + desk.faults
        outcome.acts, outcome.restarts, outcome.answers = +saboteur.counts, keeper.restarts, desk.answers
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def _live(place: Place, plan: Plan, visits: Sequence[Visit], saboteur: Saboteur, *, deadline: float) -> None:
    """Look, and let everybody do what comes next, again and again."""
    due, told_at = list(plan.troubles), 0.0
    while not all(visit.is_over for visit in visits) and time.monotonic() < deadline and place.keeper.has_hope:
        place.keeper.tend()
        if (jobs := place.lookout.look()) is not None:
            _call(visits, jobs)
            saboteur.thaw(jobs)
            progress = sum(job.progress for job in jobs.values())
            due = [each for each in due if each.at > progress or not saboteur.make(each, jobs, progress)]
            if time.monotonic() - told_at > TOLD_EVERY_SECONDS:
                told_at = time.monotonic()
                place.tell(f"{place.stack.name}: {_standing(jobs)}; {_plain(+saboteur.counts)}")
        time.sleep(LOOK_SECONDS)
    saboteur.thaw(None)


def _call(visits: Sequence[Visit], jobs: Mapping[str, Seen]) -> None:
    """Everybody who is under way, and as many more as there is room for."""
    for visit in [visit for visit in visits if not visit.is_over][:AHEAD]:
        visit.go_on(jobs)


def _end(place: Place, visits: Sequence[Visit], references: Mapping[str, Reference]) -> Outcome:
    """Ask every adapter, stop the service, and look at what it leaves."""
    outcome = Outcome(place.stack.name)
    if left := [visit.job_id or visit.order.key for visit in visits if not visit.is_over]:
        outcome.faults.append(f"not through in time: {', '.join(left)}")
    elif alive := psutil.wait_procs(place.keeper.children(), timeout=END_SECONDS)[1]:
        outcome.faults += [f"outlives the last job: {' '.join(process.cmdline())}" for process in alive]
    orders = {visit.job_id: visit.order for visit in visits if visit.job_id}
    url, store = place.settings.resolved_database_url, ArtifactStore(place.settings.artifacts_dir)
    _wait_ready(place)
    outcome.faults += check_answers(find(url, store, orders), place.http)
    place.keeper.stop()
    outcome.faults += [f"outlives the service: {' '.join(each.cmdline())}" for each in place.keeper.family()]
    found = find(url, store, orders)
    outcome.faults += check_all(found, references)
    write_story(found, place.settings.logs_dir / "events.jsonl")
    _count(found, outcome)
    return outcome


def _wait_ready(place: Place) -> None:
    """The API may just have been killed."""
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until and place.keeper.has_hope:
        place.keeper.tend()
        try:
            if place.http.get("/ready").is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(LOOK_SECONDS)


def _count(found: Found, outcome: Outcome) -> None:
    outcome.jobs.update(job.status.value for job in found.jobs)
    outcome.attempts = max((job.attempt for job in found.jobs), default=0)
    outcome.adapters = len({job.adapter_id for job in found.succeeded})
    outcome.takeovers = sum(num_takeovers(found.events[job.id]) for job in found.jobs)
    outcome.rows = sum(
        run.done for job in found.jobs for run in found.stages[job.id] if run.stage.startswith("dataset")
    )


def _standing(jobs: Mapping[str, Seen]) -> str:
    return _plain(Counter(job.status.value for job in jobs.values()))


def _plain(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "nothing yet"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
