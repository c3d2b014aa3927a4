"""What may go, and what must not: decided from what the database knows and what lies on the disk. Touches neither.

Never: what users sent, while a row names it; all that a champion or a domain's newest version was made from; the
weights that a rollback can reach; all that a job made which has not ended; what may be loaded by name. What this
database does not know is another's, or a crash's, and stays unless it is asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from pathlib import Path

from app.core.states import JobStatus
from app.storage.retention import Facts, KnownAdapter
from app.storage.store_files import Draft, StoredArtifact, is_trash

FRESH = timedelta(hours=1)  # since an artifact was made; the database may not have been told of it yet
_FORGOTTEN = timedelta(days=1)  # after which work that is no job's was left by a crash


@dataclass(frozen=True, slots=True)
class Policy:
    """What is kept. ``days``: how long what nobody needs may lie; ``num_bytes``: how much may lie there; None: all."""

    days: float | None = None
    num_bytes: int | None = None
    with_unknown: bool = False  # artifacts that the database does not know go too
    roots: tuple[Path, ...] = ()  # folders that adapters may be loaded from by name


class Rank(IntEnum):
    """In which order artifacts go."""

    UNNAMED = 0
    UNFINISHED = 1
    ENDED_BADLY = 2
    SUPERSEDED = 3


WHY = {
    Rank.UNNAMED: "no row names it any more",
    Rank.UNFINISHED: "kept of a stage that failed",
    Rank.ENDED_BADLY: "of failed or cancelled jobs",
    Rank.SUPERSEDED: "of versions that are not served",
}


@dataclass(frozen=True, slots=True)
class Leaving:
    """An artifact that goes, and why."""

    artifact: StoredArtifact
    why: str


@dataclass(frozen=True, slots=True)
class LeavingDraft:
    """Unfinished files that go, and why."""

    draft: Draft
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes now. ``num_bytes`` lie there; ``over_bytes`` are too many even then, and nothing else may go."""

    artifacts: tuple[Leaving, ...]
    torn: tuple[StoredArtifact, ...]  # without a manifest: nobody can read them
    drafts: tuple[LeavingDraft, ...]
    num_bytes: int
    over_bytes: int
    num_unknown: int  # artifacts that the database does not know
    unknown_bytes: int

    @property
    def leaving_bytes(self) -> int:
        artifacts = [leaving.artifact for leaving in self.artifacts] + list(self.torn)
        return sum(each.num_bytes for each in artifacts) + sum(each.draft.num_bytes for each in self.drafts)

    @property
    def is_empty(self) -> bool:
        return not (self.artifacts or self.torn or self.drafts)


def make_plan(
    facts: Facts, artifacts: Sequence[StoredArtifact], drafts: Sequence[Draft], policy: Policy, *, now: datetime
) -> Plan:
    """All decisions at one moment."""
    whole = [artifact for artifact in artifacts if artifact.used_at is not None]
    torn = tuple(artifact for artifact in artifacts if artifact.used_at is None)
    unknown = [artifact for artifact in whole if artifact.digest not in facts.artifacts]
    leftovers = tuple(_leftovers(facts, drafts, now))
    num_bytes = sum(each.num_bytes for each in artifacts) + sum(draft.num_bytes for draft in drafts)
    gone = sum(each.num_bytes for each in torn) + sum(each.draft.num_bytes for each in leftovers)
    leaving = list(_choose(facts, whole, policy, num_bytes - gone, now))
    if policy.with_unknown:
        settled = (artifact for artifact in unknown if _is_settled(artifact, now))
        leaving += [Leaving(artifact, "the database does not know it") for artifact in settled]
    rest = num_bytes - gone - sum(each.artifact.num_bytes for each in leaving)
    return Plan(
        artifacts=tuple(leaving),
        torn=torn,
        drafts=leftovers,
        num_bytes=num_bytes,
        over_bytes=max(0, rest - policy.num_bytes) if policy.num_bytes is not None else 0,
        num_unknown=len(unknown),
        unknown_bytes=sum(artifact.num_bytes for artifact in unknown),
    )


def _choose(
    facts: Facts, whole: Iterable[StoredArtifact], policy: Policy, num_bytes: int, now: datetime
) -> Iterator[Leaving]:
    """Known artifacts that nobody needs: by age, and the first of the rest until few enough bytes are left."""
    safe = protected(facts)
    users = _users(facts)
    ranked = sorted(
        (*_place(facts, users, artifact), artifact.digest, artifact)
        for artifact in whole
        if artifact.digest in facts.artifacts
        and artifact.digest not in safe
        and _is_settled(artifact, now)
        and not any(artifact.folder.resolve().is_relative_to(root.resolve()) for root in policy.roots)
    )
    for rank, since, _, artifact in ranked:
        is_old = policy.days is not None and since < now - timedelta(days=policy.days)
        is_too_much = policy.num_bytes is not None and num_bytes > policy.num_bytes
        if rank is Rank.UNNAMED or is_old or is_too_much:
            num_bytes -= artifact.num_bytes
            yield Leaving(artifact, WHY[rank])


def _is_settled(artifact: StoredArtifact, now: datetime) -> bool:
    return artifact.used_at is not None and artifact.used_at <= (now - FRESH).timestamp()


def protected(facts: Facts) -> frozenset[str]:
    """Digests of artifacts that must stay."""
    newest: dict[str, KnownAdapter] = {}
    for adapter in facts.adapters.values():
        if adapter.domain not in newest or newest[adapter.domain].version < adapter.version:
            newest[adapter.domain] = adapter
    whole_story = {*facts.champions, *(adapter.id for adapter in newest.values())}
    jobs = {facts.adapters[id].job_id for id in whole_story if id in facts.adapters}
    jobs |= {job.id for job in facts.jobs.values() if job.adapter_id in whole_story or not job.status.is_final}
    safe = {digest for job_id in jobs for digest in facts.made.get(job_id, ())}
    safe |= {facts.adapters[id].digest for id in whole_story if id in facts.adapters}
    weights = {facts.adapters[id].digest for id in facts.earlier if id in facts.adapters}
    return frozenset(_with_parents(facts, safe) | weights | facts.sent)


def _with_parents(facts: Facts, digests: Iterable[str]) -> set[str]:
    """They and all that they were made from."""
    found: set[str] = set()
    waiting = list(digests)
    while waiting:
        digest = waiting.pop()
        if digest not in found:
            found.add(digest)
            waiting += facts.artifacts[digest].parents if digest in facts.artifacts else ()
    return found


def _users(facts: Facts) -> Mapping[str, list[str]]:
    """Ids of the jobs that made or used an artifact, by its digest."""
    users: dict[str, list[str]] = defaultdict(list)
    for job_id, digests in facts.made.items():
        for digest in digests:
            users[digest].append(job_id)
    return users


def _place(facts: Facts, users: Mapping[str, list[str]], artifact: StoredArtifact) -> tuple[Rank, datetime]:
    """When its turn comes: its rank, and within that since when nobody has used it."""
    jobs = [facts.jobs[job_id] for job_id in users.get(artifact.digest, ()) if job_id in facts.jobs]
    since = max([facts.artifacts[artifact.digest].created_at, *(job.ended_at for job in jobs)])
    if not jobs:
        return Rank.UNNAMED, since
    if artifact.kind.endswith("-unfinished"):
        return Rank.UNFINISHED, since
    if all(job.status in {JobStatus.FAILED, JobStatus.CANCELLED} for job in jobs):
        return Rank.ENDED_BADLY, since
    return Rank.SUPERSEDED, since


def _leftovers(facts: Facts, drafts: Iterable[Draft], now: datetime) -> Iterator[LeavingDraft]:
    """Drafts that nobody will go on with."""
    for draft in drafts:
        job = facts.jobs.get(draft.owner)
        if is_trash(draft):
            yield LeavingDraft(draft, "was being deleted")
        elif job is not None and job.status.is_final:
            yield LeavingDraft(draft, "drafts of ended jobs")
        elif job is None and draft.changed_at < (now - _FORGOTTEN).timestamp():
            yield LeavingDraft(draft, "left by a crash")
