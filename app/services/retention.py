"""Takes away what nobody needs any more, so that the disk does not fill; says first what would go.

The database is told in the transaction in which an artifact becomes unreadable; its files go afterwards. A kill at any
moment leaves either an artifact that is whole, or one that nobody can open and the next run removes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from app.core.errors import DatabaseAway
from app.services.retention_plan import FRESH, Plan, Policy, make_plan
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database, UnitOfWork
from app.storage.retention import Facts
from app.storage.store_files import Draft, StoredArtifact, StoreFiles

_TRIES = 10  # to have the tables for a moment, of a fifth of a second each


@dataclass(frozen=True, slots=True)
class Group:
    """Things of one kind that go for one reason."""

    kind: str
    why: str
    count: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Report:
    """What went, or would go. ``over_bytes``: too many that stay even so, because all of them are needed."""

    is_dry_run: bool
    groups: tuple[Group, ...]
    kept_bytes: int
    over_bytes: int
    num_unknown: int  # artifacts that the database does not know; they stay unless they are asked for
    unknown_bytes: int

    @property
    def count(self) -> int:
        return sum(group.count for group in self.groups)

    @property
    def num_bytes(self) -> int:
        return sum(group.num_bytes for group in self.groups)

    def lines(self) -> Iterator[str]:
        """For people."""
        did = "would remove" if self.is_dry_run else "removed"
        for group in self.groups:
            yield f"{did} {group.count} {group.kind}, {_size_of(group.num_bytes)}: {group.why}"
        yield f"{did} {self.count} in all, {_size_of(self.num_bytes)}; kept {_size_of(self.kept_bytes)}"
        if self.over_bytes:
            yield f"{_size_of(self.over_bytes)} more than the limit stay: all of it is needed"
        if self.num_unknown:
            told = f"{self.num_unknown} artifacts, {_size_of(self.unknown_bytes)}, are unknown to this database"
            yield f"{told}: they stay unless --unknown is given"

    def to_dict(self) -> dict[str, object]:
        """For machines."""
        return {**asdict(self), "count": self.count, "num_bytes": self.num_bytes}


@dataclass(frozen=True, slots=True)
class _Going:
    """All that a run takes. ``plan.artifacts`` are those that were really hidden, once they were."""

    plan: Plan
    logs: tuple[Path, ...]
    num_deliveries: int

    @property
    def is_empty(self) -> bool:
        return self.plan.is_empty and not self.logs and not self.num_deliveries


class Retention:
    """Several processes may clean at once; what one has taken the others do not find."""

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactStore,
        *,
        policy: Policy,
        logs_dir: Path,
        clock: Callable[[], datetime],
    ) -> None:
        self._database, self._policy, self._logs_dir, self._clock = database, policy, logs_dir, clock
        self._files = StoreFiles(artifacts.root)

    def look(self) -> Report:
        """What ``clean`` would do now; changes nothing."""
        return _report(self._find(self._clock()), is_dry_run=True)

    def clean(self) -> Report:
        """Do it. Raises DatabaseAway and DiskFull; then a part is done at most, and the next run does the rest."""
        now = self._clock()
        if (going := self._find(now)).is_empty:
            return _report(going, is_dry_run=False)
        going, set_aside = self._hide(now)
        report = _report(going, is_dry_run=False)
        for artifact in (*(leaving.artifact for leaving in going.plan.artifacts), *going.plan.torn):
            self._files.remove_hidden(artifact)
        for folder in set_aside:
            self._files.delete(folder)
        for path in going.logs:
            path.unlink(missing_ok=True)
        return report

    def _find(self, now: datetime) -> _Going:
        artifacts, drafts = self._files.artifacts(), self._files.drafts()
        with self._database.session(read_only=True) as uow:
            return self._decide(uow, artifacts, drafts, now)

    def _decide(
        self, uow: UnitOfWork, artifacts: Sequence[StoredArtifact], drafts: Sequence[Draft], now: datetime
    ) -> _Going:
        facts, oldest = uow.retention.facts(now=now), self._oldest(now)
        return _Going(
            make_plan(facts, artifacts, drafts, self._policy, now=now),
            tuple(self._old_logs(facts, oldest)) if oldest is not None else (),
            uow.webhooks.num_over(before=oldest) if oldest is not None else 0,
        )

    def _hide(self, now: datetime) -> tuple[_Going, list[Path]]:
        """One short transaction in which no job can begin, end or be promoted; also the drafts set aside in it."""
        for attempt in range(1, _TRIES + 1):
            try:
                return self._hide_once(now)
            except DatabaseAway:
                if attempt == _TRIES:
                    raise
        raise AssertionError("unreachable")

    def _hide_once(self, now: datetime) -> tuple[_Going, list[Path]]:
        artifacts, drafts = self._files.artifacts(), self._files.drafts()
        with self._files.alone(), self._database.session() as uow:
            uow.retention.hold_still()
            going = self._decide(uow, artifacts, drafts, now)
            fresh = (now - FRESH).timestamp()
            hidden = [each for each in going.plan.artifacts if self._files.hide(each.artifact, unless_since=fresh)]
            torn = [artifact for artifact in going.plan.torn if self._files.is_torn(artifact)]
            aside = [(each, self._files.set_aside(each.draft)) for each in going.plan.drafts]
            unreadable = [*(each.artifact.digest for each in hidden), *(each.digest for each in torn)]
            uow.retention.note_removed(unreadable, now=now)
            if (oldest := self._oldest(now)) is not None:
                uow.webhooks.forget(before=oldest)
            uow.commit()
        taken = [each for each, folder in aside if folder is not None]
        plan = replace(going.plan, artifacts=tuple(hidden), torn=tuple(torn), drafts=tuple(taken))
        return replace(going, plan=plan), [folder for _, folder in aside if folder is not None]

    def _old_logs(self, facts: Facts, oldest: datetime) -> Iterator[Path]:
        """Of jobs that ended before then."""
        for path in sorted(self._logs_dir.glob("job-*.log*")):
            job = facts.jobs.get(path.name.partition(".")[0])
            if job is not None and job.status.is_final and job.ended_at < oldest:
                yield path

    def _oldest(self, now: datetime) -> datetime | None:
        return None if self._policy.days is None else now - timedelta(days=self._policy.days)


def _report(going: _Going, *, is_dry_run: bool) -> Report:
    """``going`` before its files are deleted."""
    plan = going.plan
    things = [(each.artifact.kind, each.why, each.artifact.num_bytes) for each in plan.artifacts]
    things += [(each.kind, "half deleted or half made", each.num_bytes) for each in plan.torn]
    things += [("drafts", each.why, each.draft.num_bytes) for each in plan.drafts]
    things += [("logs", "of jobs that ended long ago", _size(path)) for path in going.logs]
    things += [("webhook deliveries", "over long ago", 0)] * going.num_deliveries
    counts, sizes = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for kind, why, num_bytes in things:
        counts[kind, why] += 1
        sizes[kind, why] += num_bytes
    groups = [Group(kind, why, count, sizes[kind, why]) for (kind, why), count in counts.items()]
    return Report(
        is_dry_run=is_dry_run,
        groups=tuple(groups),
        kept_bytes=plan.num_bytes - plan.leaving_bytes,
        over_bytes=plan.over_bytes,
        num_unknown=plan.num_unknown,
        unknown_bytes=plan.unknown_bytes,
    )


def _size_of(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
