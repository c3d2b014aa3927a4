"""What stands in the service's way, part by part, each with its mend. Looks at everything and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

import psutil

from app.core.errors import ArtifactDamaged, NotFound, SelfspecError
from app.core.states import WaitsFor
from app.models import Adapter, Worker
from app.services.adapters import KIND as ADAPTER
from app.services.worker_beat import is_alive
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database
from app.storage.disk import check_space
from app.storage.job_queue import JobQueue

_SLOW_CLOCK = timedelta(seconds=5)  # between this machine and the database's server
_LONG = timedelta(minutes=10)  # for a job to wait while workers live


class Grade(StrEnum):
    """How a part is."""

    OK = "ok"
    WARN = "warn"  # it works, and somebody should look
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. ``mend``: what to do; "" if nothing is to be done."""

    part: str
    grade: Grade
    detail: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.grade:<5} {self.part:<11} {self.detail}{f' → {self.mend}' if self.mend else ''}"


@dataclass(frozen=True, slots=True)
class BaseHere:
    """The base that the settings name. ``problem``: why it cannot be loaded; "" if it can."""

    name: str
    problem: str
    mend: str
    fingerprints: Mapping[str, str]  # by quantization: those that the settings allow
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the settings say about the machine."""

    folders: tuple[Path, ...]  # that must have room
    min_free_bytes: int
    lease_seconds: float
    heartbeat_seconds: float
    has_webhook_secret: bool


class Diagnosis:
    """Asks every part in turn; a part that others need and that fails is why those are not looked at."""

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactStore,
        queue: JobQueue,
        *,
        around: Surroundings,
        find_base: Callable[[], BaseHere],
        clock: Callable[[], datetime],
    ) -> None:
        self._database, self._artifacts, self._queue = database, artifacts, queue
        self._around, self._find_base, self._clock = around, find_base, clock

    def run(self, *, all_artifacts: bool = False) -> Iterator[Finding]:
        """A finding or more a part. ``all_artifacts``: read every file of the store, not the champions' alone."""
        yield from self._ask("settings", self._settings)
        yield from self._ask("disk", self._disk)
        yield from self._ask("memory", self._memory)
        yield from self._ask("base", self._base)
        yield from self._ask("broker", self._broker)
        found = list(self._ask("database", self._server))
        if all(finding.grade is not Grade.FAIL for finding in found):
            found += self._ask("migrations", self._migrations)
        yield from found
        questions = {
            "clock": self._clocks,
            "workers": self._workers,
            "jobs": self._jobs,
            "artifacts": lambda: self._digests(all_artifacts),
            "adapters": self._fingerprints,
            "webhooks": self._webhooks,
        }
        if any(finding.grade is Grade.FAIL for finding in found):
            told = f"not looked at: {', '.join(questions)}"
            yield Finding("rest", Grade.WARN, told, "mend the database first")
            return
        for part, question in questions.items():
            yield from self._ask(part, question)

    def _ask(self, part: str, question: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
        """A failure is an answer here, whatever raised it."""
        try:
            yield from question()
        except SelfspecError as error:
            yield Finding(part, Grade.FAIL, error.message, _MENDS.get(part, ""))
        except Exception as error:
            yield Finding(part, Grade.FAIL, f"{type(error).__name__}: {error}", _MENDS.get(part, ""))

    def _settings(self) -> Iterator[Finding]:
        lease, heartbeat = self._around.lease_seconds, self._around.heartbeat_seconds
        if heartbeat * 2 > lease:
            told = f"a heartbeat every {heartbeat:g} s for a lease of {lease:g} s: one that is late loses the job"
            yield Finding(
                "settings", Grade.WARN, told, "set SELFSPEC_HEARTBEAT_SECONDS to a sixth of the lease or less"
            )
        else:
            yield Finding("settings", Grade.OK, "can be used")

    def _disk(self) -> Iterator[Finding]:
        for folder in dict.fromkeys(self._around.folders):
            free = check_space(folder, num_bytes=self._around.min_free_bytes)
            yield Finding("disk", Grade.OK, f"{free / 1e9:.1f} GB free at {folder}")

    def _memory(self) -> Iterator[Finding]:
        free, needed = psutil.virtual_memory().available, 2 * self._find_base().num_bytes
        figures = f"{free / 1e9:.1f} GB free"
        if free < needed:
            told = f"{figures}, and the base may take {needed / 1e9:.1f} GB a process that loads it now"
            yield Finding("memory", Grade.WARN, told, "end other programs, or choose a smaller SELFSPEC_BASE")
        else:
            yield Finding("memory", Grade.OK, figures)

    def _base(self) -> Iterator[Finding]:
        base = self._find_base()
        if base.problem:
            yield Finding("base", Grade.FAIL, base.problem, base.mend)
        else:
            yield Finding("base", Grade.OK, f"{base.name} is here")

    def _broker(self) -> Iterator[Finding]:
        self._queue.check()
        yield Finding("broker", Grade.OK, "answers")

    def _server(self) -> Iterator[Finding]:
        self._database.server_time()
        yield Finding("database", Grade.OK, "answers")

    def _migrations(self) -> Iterator[Finding]:
        if missing := self._database.missing_migrations():
            yield Finding("migrations", Grade.FAIL, f"missing: {', '.join(missing)}", "selfspec migrate")
        else:
            yield Finding("migrations", Grade.OK, "all are there")

    def _clocks(self) -> Iterator[Finding]:
        theirs = self._database.server_time()
        skew = abs(theirs - self._clock()) if theirs is not None else timedelta()
        if skew > _SLOW_CLOCK:
            told = f"the database's differs from this machine's by {skew.total_seconds():.0f} s"
            yield Finding("clock", Grade.WARN, told, "run a time service (NTP) on both; leases are reckoned by clocks")
        else:
            yield Finding(
                "clock", Grade.OK, "one clock" if theirs is None else "the database's agrees with this machine's"
            )

    def _workers(self) -> Iterator[Finding]:
        alive = self._alive()
        if not alive:
            yield Finding("workers", Grade.FAIL, f"none lives{self._last_seen()}", _MENDS["workers"])
        for worker in alive:
            told = (
                f"{worker.host}, process {worker.pid}: {worker.slots} at once, since {worker.started_at:%Y-%m-%d %H:%M}"
            )
            yield Finding("workers", Grade.OK, told)

    def _jobs(self) -> Iterator[Finding]:
        now, lease = self._clock(), timedelta(seconds=self._around.lease_seconds)
        with self._database.session(read_only=True) as uow:
            silent = uow.jobs.expired_ids(now=now - 2 * lease, lease_seconds=self._around.lease_seconds)
            queued = [uow.jobs.get(job_id) for job_id in uow.jobs.queued_ids()]
        for job_id in silent:
            yield Finding("jobs", Grade.FAIL, f"{job_id} runs, but nobody has worked on it for long", _MENDS["workers"])
        for job in queued:
            if job.waits_for in (WaitsFor.MEMORY, WaitsFor.DISK):
                told = f"{job.id} waits until there is enough {job.waits_for}"
                yield Finding("jobs", Grade.WARN, told, f"free some {job.waits_for}; it then goes on by itself")
        waiting = [job for job in queued if job.waits_for is None and job.created_at < now - _LONG]
        if waiting and not self._alive():
            told = f"{len(waiting)} wait since {waiting[0].created_at:%Y-%m-%d %H:%M} and no worker lives"
            yield Finding("jobs", Grade.FAIL, told, _MENDS["workers"])
        elif not silent:
            yield Finding("jobs", Grade.OK, f"{len(queued)} queued")

    def _digests(self, all_artifacts: bool) -> Iterator[Finding]:
        with self._database.session(read_only=True) as uow:
            kinds = uow.artifacts.kinds() if all_artifacts else {}
        names = {adapter.artifact_digest: adapter.name for adapter in self._champions()}
        bad = 0
        for digest, kind in {**kinds, **dict.fromkeys(names, ADAPTER)}.items():
            if problem := self._problem(digest, kind):
                bad += 1
                who = names.get(digest)
                mend = f"POST /domains/{who.partition('@')[0]}/rollback, or specialize again" if who else _MADE_AGAIN
                yield Finding(
                    "artifacts", Grade.FAIL if who else Grade.WARN, f"{f'{who}: ' if who else ''}{problem}", mend
                )
        if not bad:
            told = f"{len(kinds.keys() | names.keys())} read and whole"
            yield Finding("artifacts", Grade.OK, told if all_artifacts else f"{told}: all that is served")

    def _fingerprints(self) -> Iterator[Finding]:
        base, champions = self._find_base(), self._champions()
        known = {fingerprint: quantization for quantization, fingerprint in base.fingerprints.items()}
        misfits = [adapter for adapter in champions if adapter.base_fingerprint not in known]
        if not known:
            yield Finding("adapters", Grade.WARN, "cannot be compared with the base, which is not here")
            return
        for adapter in misfits:
            told = f"{adapter.name} was made on {adapter.base} ({adapter.base_fingerprint}); {base.name} is another"
            mend = "set SELFSPEC_BASE and SELFSPEC_QUANTIZATION to what it was made on, or specialize again"
            yield Finding("adapters", Grade.FAIL, told, mend)
        if not misfits:
            used = sorted({known[adapter.base_fingerprint] for adapter in champions})
            yield Finding("adapters", Grade.OK, f"{len(champions)} served fit the base{_quantized(used)}")

    def _webhooks(self) -> Iterator[Finding]:
        with self._database.session(read_only=True) as uow:
            waiting = uow.webhooks.num_waiting()
        if waiting and not self._around.has_webhook_secret:
            told = f"{waiting} wait to be sent, and there is no secret to sign them with"
            yield Finding("webhooks", Grade.FAIL, told, "set SELFSPEC_WEBHOOK_SECRET for the API")
        else:
            yield Finding("webhooks", Grade.OK, f"{waiting} wait to be sent")

    def _alive(self) -> list[Worker]:
        now, within = self._clock(), self._around.lease_seconds
        with self._database.session(read_only=True) as uow:
            return [worker for worker in uow.workers.list() if is_alive(worker, now=now, within_seconds=within)]

    def _last_seen(self) -> str:
        with self._database.session(read_only=True) as uow:
            workers = uow.workers.list()
        return f"; one was last seen on {workers[0].seen_at:%Y-%m-%d at %H:%M}" if workers else ""

    def _champions(self) -> list[Adapter]:
        with self._database.session(read_only=True) as uow:
            return [domain.champion for domain in uow.domains.list() if domain.champion is not None]

    def _problem(self, digest: str, kind: str) -> str | None:
        try:
            self._artifacts.verify(self._artifacts.open(digest, kind=kind))
        except (NotFound, ArtifactDamaged) as error:
            return error.message
        return None


_MADE_AGAIN = "retry its job: what is missing is made again"
_MENDS = {
    "disk": "free some space (selfspec clean), or let SELFSPEC_DATA_DIR name another place",
    "broker": "start it, or correct SELFSPEC_BROKER_URL",
    "database": "start it, or correct SELFSPEC_DATABASE_URL",
    "migrations": "install the selfspec that made them, or go back to a backup",
    "workers": "start one: selfspec serve, or selfspec worker",
}


def _quantized(used: list[str]) -> str:
    return f" ({', '.join(used)})" if used else ""
