"""What must be true once all jobs have ended. Each check reads what was left and yields its faults, a line each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from app.core.errors import ArtifactDamaged, NotFound
from app.core.states import JobStatus, StageStatus
from app.models import Adapter, ArtifactEntry, Event, Job, SeedSet, StageRun
from app.storage.artifacts import ArtifactStore
from tests.chaos.plan import Caller, Order
from tests.chaos.references import Reference

ENDINGS = {"job_succeeded": JobStatus.SUCCEEDED, "job_failed": JobStatus.FAILED, "job_cancelled": JobStatus.CANCELLED}
BEGINNINGS = ("job_queued", "job_retried")  # of a life, at whose end there is one ending
TOLD_LATER = ("webhook_given_up",)  # may follow the end


@dataclass(frozen=True, slots=True)
class Found:
    """What the service left. Stages and events are in their order; ``orders`` by job."""

    orders: Mapping[str, Order]
    jobs: Sequence[Job]
    stages: Mapping[str, Sequence[StageRun]]
    events: Mapping[str, Sequence[Event]]
    adapters: Sequence[Adapter]
    entries: Sequence[ArtifactEntry]
    seed_sets: Sequence[SeedSet]
    store: ArtifactStore

    @property
    def succeeded(self) -> list[Job]:
        return [job for job in self.jobs if job.status is JobStatus.SUCCEEDED]

    @property
    def digests(self) -> dict[str, str]:
        """Every artifact that a row names: kind by digest."""
        kinds = {entry.digest: entry.kind for entry in self.entries}
        named = [run.artifact_digest for runs in self.stages.values() for run in runs]
        named += [adapter.artifact_digest for adapter in self.adapters]
        named += [seed_set.artifact_digest for seed_set in self.seed_sets]
        return {digest: kinds.get(digest, "unknown") for digest in [*kinds, *named] if digest}


def find(url: str, store: ArtifactStore, orders: Mapping[str, Order]) -> Found:
    """Read all of it."""
    engine = create_engine(url)
    with Session(engine) as session:
        jobs = session.scalars(select(Job).order_by(Job.created_at)).all()
        runs = session.scalars(select(StageRun).order_by(StageRun.position)).all()
        events = session.scalars(select(Event).order_by(Event.id)).all()
        found = Found(
            orders,
            jobs,
            {job.id: [run for run in runs if run.job_id == job.id] for job in jobs},
            {job.id: [event for event in events if event.job_id == job.id] for job in jobs},
            session.scalars(select(Adapter).order_by(Adapter.domain, Adapter.version)).all(),
            session.scalars(select(ArtifactEntry)).all(),
            session.scalars(select(SeedSet)).all(),
            store,
        )
    engine.dispose()
    return found


def write_story(found: Found, path: Path) -> None:
    """Every event, one JSON object a line, for whoever looks into a fault."""
    lines = [
        {"job": job, "id": event.id, "at": event.created_at.isoformat(), "type": event.type, "stage": event.stage}
        | {"message": event.message, "data": event.data}
        for job, events in found.events.items()
        for event in events
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def check_all(found: Found, references: Mapping[str, Reference]) -> list[str]:
    """Every fault there is."""
    own = (check_jobs, check_lives, check_events, check_adapters, check_artifacts, check_drafts)
    return [fault for check in own for fault in check(found)] + list(check_products(found, references))


def check_jobs(found: Found) -> Iterator[str]:
    """Each order made one job, and it ended as its caller wanted."""
    for job_id in found.orders.keys() ^ {job.id for job in found.jobs}:
        yield f"job {job_id} is {'not stored' if job_id in found.orders else 'nobody ordered'}"
    for job in found.jobs:
        order = found.orders.get(job.id)
        wanted = {JobStatus.SUCCEEDED}
        if order and order.caller is Caller.CANCELS:
            wanted.add(JobStatus.CANCELLED)  # unless it came too late
        if job.status not in wanted:
            yield f"job {job.id} is {job.status}: {job.error_code} {job.error_message}"


def check_lives(found: Found) -> Iterator[str]:
    """One ending a life, and it is the job's status; each attempt by itself; nothing is told by one who has lost it."""
    for job in found.jobs:
        lives = list(_lives(found.events[job.id]))
        for number, life in enumerate(lives, 1):
            endings = [event.type for event in life if event.type in ENDINGS]
            if len(endings) != 1:
                yield f"job {job.id}, life {number}: it ended {len(endings)} times ({', '.join(endings)})"
            elif life[-1].type not in ENDINGS:
                yield f"job {job.id}, life {number}: {life[-1].type} was told after its end"
            elif number == len(lives) and ENDINGS[endings[0]] is not job.status:
                yield f"job {job.id} is {job.status}, its last event says {endings[0]}"
        attempts = [event.message for event in found.events[job.id] if event.type == "job_started"]
        if attempts != [f"attempt {number}" for number in range(1, job.attempt + 1)]:
            yield f"job {job.id} has attempt {job.attempt}; it began with {', '.join(attempts)}"


def check_events(found: Found) -> Iterator[str]:
    """In the order of their moments; each stage succeeded once, where it began."""
    for job in found.jobs:
        events = found.events[job.id]
        for before, after in pairwise(events):
            if after.created_at < before.created_at:
                yield f"job {job.id}: {after.type} ({after.id}) is older than {before.type} ({before.id})"
        done = Counter(event.stage for event in events if event.type == "stage_succeeded")
        for run in found.stages[job.id]:
            if done[run.stage] != (run.status is StageStatus.SUCCEEDED):
                yield f"job {job.id}: {run.stage} is {run.status} and succeeded {done[run.stage]} times"


def check_adapters(found: Found) -> Iterator[str]:
    """A succeeded job has an adapter, another has none; a domain's versions are numbered without a gap."""
    by_id = {adapter.id: adapter for adapter in found.adapters}
    for job in found.jobs:
        adapter = by_id.get(job.adapter_id or "")
        made = {run.artifact_digest for run in found.stages[job.id]}
        if job.status is not JobStatus.SUCCEEDED:
            if job.adapter_id is not None:
                yield f"job {job.id} is {job.status} and has adapter {job.adapter_id}"
        elif adapter is None or adapter.domain != job.domain or adapter.artifact_digest not in made:
            yield f"job {job.id} has no adapter of its own: {job.adapter_id}"
    used = {job.adapter_id for job in found.jobs}
    yield from (f"no job has adapter {adapter.id}" for adapter in found.adapters if adapter.id not in used)
    for domain in {adapter.domain for adapter in found.adapters}:
        versions = [adapter.version for adapter in found.adapters if adapter.domain == domain]
        if versions != list(range(1, len(versions) + 1)):
            yield f"the versions of {domain} are {versions}"


def check_artifacts(found: Found) -> Iterator[str]:
    """What rows name is there and whole; what lies there is whole, or nobody can open it."""
    store = found.store
    for digest, kind in found.digests.items():
        try:
            store.verify(store.open(digest, kind=kind))
        except (NotFound, ArtifactDamaged) as error:
            yield f"a row names {kind}/{digest}: {error.message}"
    for folder in store.root.glob("*/*"):
        if folder.parent.name == "tmp" or folder.name in found.digests:
            continue
        try:
            store.verify(store.open(folder.name, kind=folder.parent.name))
        except NotFound:
            continue
        except ArtifactDamaged as error:
            yield error.message


def check_drafts(found: Found) -> Iterator[str]:
    """Nothing half-made is left of a job that has ended."""
    for job in found.jobs:
        left = [path for path in (found.store.root / "tmp" / job.id).rglob("*") if path.is_file()]
        if left:
            yield f"job {job.id} is {job.status} and left {len(left)} files, {left[0]} among them"


def check_products(found: Found, references: Mapping[str, Reference]) -> Iterator[str]:
    """What a job has made is what an undisturbed one makes: the same rows, none lost or doubled, the same weights."""
    for job in found.jobs:
        if (order := found.orders.get(job.id)) is None:
            continue
        reference = references[order.variant]
        made = {run.stage: run for run in found.stages[job.id] if run.stage in reference.digests}
        for stage, run in made.items():
            is_whole = run.status is StageStatus.SUCCEEDED or job.status is JobStatus.SUCCEEDED
            if is_whole and run.artifact_digest != reference.digests[stage]:
                yield f"job {job.id}: {stage} is {run.artifact_digest}, undisturbed {reference.digests[stage]}"
                yield from _compare_rows(found, run, reference)
        if made.keys() != reference.digests.keys():
            yield f"job {job.id} has the stages {sorted(made)}, undisturbed {sorted(reference.digests)}"


def num_takeovers(events: Sequence[Event]) -> int:
    """Attempts that began because a worker had fallen silent."""
    return sum(event.type == "worker_lost" for event in events)


def _compare_rows(found: Found, run: StageRun, reference: Reference) -> Iterator[str]:
    """How two datasets differ."""
    if run.artifact_digest is None or run.stage not in reference.rows:
        return
    ours = Counter(map(repr, found.store.open(run.artifact_digest, kind="dataset").rows()))
    theirs = Counter(map(repr, reference.rows[run.stage]))
    yield f"job {run.job_id}: {run.stage} lost {(theirs - ours).total()} rows and has {(ours - theirs).total()} more"


def _lives(events: Sequence[Event]) -> Iterator[list[Event]]:
    """A job's events from being queued to its end, and again from each retry."""
    life: list[Event] = []
    for event in events:
        if event.type in BEGINNINGS and life:
            yield life
            life = []
        if event.type not in TOLD_LATER:
            life.append(event)
    if life:
        yield life
