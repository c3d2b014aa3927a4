"""Files that OpenAI's API names though nobody uploaded them there: the sets a job was given and what a job made.

``file-set-…`` is a set of labelled examples (JSONL, as /specialize stored it); ``file-job-…-steps`` (CSV: the losses of
the expert's training), ``-dataset`` and ``-metrics`` (JSONL) are the results of a job that succeeded.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from app.core.errors import NotFound
from app.core.states import JobStatus
from app.models import Job
from app.pipeline.adapter import TRAINING
from app.pipeline.bench import COMPARISONS
from app.services.adapters import KIND as ADAPTER
from app.services.job_stages import DATASET, Made, find_dataset
from app.services.jobs import METRICS_STAGE as METRICS
from app.services.seed_sets import KIND as SEEDS
from app.storage.artifacts import ROWS, ArtifactStore, read_rows
from app.storage.database import Database, UnitOfWork

STEPS = "steps"
RESULTS = (STEPS, DATASET, METRICS)
GIVEN_PURPOSE, MADE_PURPOSE = "fine-tune", "fine-tune-results"
_SET = re.compile(r"file-(?P<set>set-[0-9a-z-]+)")
_RESULT = re.compile(rf"file-(?P<job>job-[0-9a-z-]+)-(?P<what>{'|'.join(RESULTS)})")
_COLUMNS = {
    "step": "step",
    "train_loss": "loss",
    "epoch": "epoch",
    "learning_rate": "learning_rate",
    "tokens": "tokens",
}


@dataclass(frozen=True, slots=True)
class FileView:
    """A file as callers see it. ``expires_at`` None: it stays."""

    id: str
    filename: str
    purpose: str
    num_bytes: int
    created_at: datetime
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class FileContent:
    """What a file holds: where it lies, or its bytes."""

    filename: str
    data: Path | bytes

    def read(self) -> bytes:
        """All of it."""
        return self.data if isinstance(self.data, bytes) else self.data.read_bytes()

    @property
    def num_bytes(self) -> int:
        return len(self.data) if isinstance(self.data, bytes) else self.data.stat().st_size


def set_file_id(seed_set_id: str) -> str:
    """The id of a set's file."""
    return f"file-{seed_set_id}"


def result_file_ids(job_id: str) -> tuple[str, ...]:
    """The ids of the files of a job that succeeded."""
    return tuple(f"file-{job_id}-{what}" for what in RESULTS)


def find_job_file(database: Database, artifacts: ArtifactStore, file_id: str) -> tuple[FileView, FileContent] | None:
    """The file of that id; None if the id is no such file's. Raises NotFound if it names what is not there."""
    if match := _SET.fullmatch(file_id):
        return _given(database, artifacts, file_id, match["set"])
    if match := _RESULT.fullmatch(file_id):
        return _made(database, artifacts, file_id, match["job"], match["what"])
    return None


@contextmanager
def _missing(file_id: str) -> Iterator[None]:
    """Whatever is not there, it is the file that callers asked for."""
    try:
        yield
    except NotFound as error:
        raise NotFound(f"there is no file {file_id!r}: {error.message}", param="file_id") from error


def _given(
    database: Database, artifacts: ArtifactStore, file_id: str, seed_set_id: str
) -> tuple[FileView, FileContent]:
    with _missing(file_id), database.session(read_only=True) as uow:
        found = uow.seed_sets.get(seed_set_id)
        path = artifacts.open(found.artifact_digest, kind=SEEDS).folder / ROWS
    content = FileContent(f"{found.domain}-{found.role.value}.jsonl", path)
    return FileView(file_id, content.filename, GIVEN_PURPOSE, content.num_bytes, found.created_at), content


def _made(
    database: Database, artifacts: ArtifactStore, file_id: str, job_id: str, what: str
) -> tuple[FileView, FileContent]:
    with _missing(file_id):
        with database.session(read_only=True) as uow:
            job = uow.jobs.get(job_id)
            if job.status is not JobStatus.SUCCEEDED or job.finished_at is None:
                raise NotFound(f"job {job_id} is {job.status}")
            digest = _digest(uow, job, what)
        content = _content(artifacts, job_id, what, digest)
    return FileView(file_id, content.filename, MADE_PURPOSE, content.num_bytes, job.finished_at), content


def _digest(uow: UnitOfWork, job: Job, what: str) -> str:
    if what == STEPS:
        return uow.adapters.get(job.adapter_id or "").artifact_digest
    made = Made.of(uow, job)
    stage = find_dataset(uow, job, made) if what == DATASET else METRICS
    return made.digests.get(stage or "", "")


def _content(artifacts: ArtifactStore, job_id: str, what: str, digest: str) -> FileContent:
    if what == STEPS:
        rows = read_rows(artifacts.open(digest, kind=ADAPTER).folder / TRAINING)
        return FileContent(f"{job_id}-steps.csv", _table(rows))
    name = ROWS if what == DATASET else COMPARISONS
    return FileContent(f"{job_id}-{what}.jsonl", artifacts.open(digest, kind=what).folder / name)


def _table(steps: Iterable[Mapping[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([step[ours] for ours in _COLUMNS.values()] for step in steps)
    return text.getvalue().encode()
