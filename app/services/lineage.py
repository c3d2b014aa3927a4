"""Where a training row comes from, and what came of a seed: read back from the artifacts that a job left.

Files are read line by line, never whole. Which stage read which is asked of the walk that the job's recipe gives.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

from app.core.errors import InvalidInput, NotFound, Problem
from app.core.recipe import Recipe
from app.core.records import Answer, Candidate, Example, Origin, Passage, Reply, Seed
from app.core.states import JobStatus
from app.models import Job
from app.pipeline.answering import ANSWERS, tidy
from app.pipeline.instructions import REPLIES
from app.pipeline.rows import from_row
from app.pipeline.stages import chooses
from app.services.corpora import read_passages
from app.services.dataset_rows import WAS, Texts, is_reviewed
from app.services.job_order import read_split
from app.services.job_stages import DATASET, Made, choose_dataset, find_dataset
from app.services.seed_sets import read_seeds
from app.storage.artifacts import ROWS, Artifact, ArtifactStore
from app.storage.artifacts import read_rows as read_lines
from app.storage.database import Database, UnitOfWork
from app.storage.row_places import row_places

_ID_CHARS = 16  # of a row's id; a shorter text of digits is a row's number

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Writer:
    """Who wrote something: "user", "base" or an adapter's id. ``name``: finance@v3, if that adapter is a version."""

    id: str
    name: str | None = None
    stage: str | None = None  # of the job, if the adapter is one that the job made


@dataclass(frozen=True, slots=True)
class RowLineage:
    """A row of a job's dataset as it is learned, with all that led to it; of a seed only itself.

    Writers, reply and answer are of the row as it was made. ``artifacts``: digests by stage.
    """

    job: str
    stage: str  # the dataset's
    row: int  # from 0
    example: Example
    seeds: tuple[Seed, ...]  # shown to who wrote the instruction, in that order; or the row itself
    passages: tuple[Passage, ...]  # whole, with the weights they had; a text that is gone is ""
    instruction_writer: Writer
    response_writer: Writer
    reply: Reply | None = None
    answer: Answer | None = None
    was: Texts | None = None  # the texts it was made with, if a person changed them in a review
    artifacts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SeedJob:
    """A job that a seed was sent to. ``is_held_out`` None: its sets are gone, so nobody can tell."""

    job: str
    domain: str
    status: JobStatus
    is_held_out: bool | None
    adapter: Writer | None  # that learned from it; None also if a review left nothing of it


@dataclass(frozen=True, slots=True)
class SeedRow:
    """A training row that a seed led to, or is."""

    job: str
    row: int
    id: str
    origin: Origin
    task: str | None
    instruction: str
    input: str
    output: str
    is_edited: bool  # a person changed it in a review


@dataclass(frozen=True, slots=True)
class SeedRows:
    """What came of a seed; ``next`` is the ``after`` of the rows behind these, None at the end."""

    id: str
    seed: Seed | None  # None: every set that held it is gone
    jobs: tuple[SeedJob, ...]
    rows: tuple[SeedRow, ...]
    next: str | None


class Lineage:
    """Reads the store; every method may block on disk and database."""

    def __init__(self, database: Database, artifacts: ArtifactStore) -> None:
        self._database, self._artifacts = database, artifacts

    def row(self, job_id: str, row: str, *, stage: str | None = None) -> RowLineage:
        """One row by its number (from 0) or its id, of the expert's dataset or of ``stage``; raises NotFound."""
        with self._database.session(read_only=True) as uow:
            job = uow.jobs.get(job_id)
            made = Made.of(uow, job)
            chosen = choose_dataset(uow, job, made, stage)
            seed_set = uow.seed_sets.get(job.seed_set_id).artifact_digest
        number, found = _find_row(self._open(made, chosen), job_id, row)
        example = from_row(Example, found)
        responses = example.stage or made.read_by(chosen, "responses") or ""
        instructions = made.read_by(responses, "instructions") or ""
        reply = answer = None
        if example.origin is Origin.GENERATED:
            candidates = self._open(made, instructions)
            replies = _records(candidates, REPLIES, Reply)
            reply = next((reply for reply in replies if reply.index == example.reply), None)
            output = from_row(Texts, found[WAS]).output if WAS in found else example.output
            answer = _with_merged(self._answer(candidates, self._open(made, responses), example), output)
        with self._database.session(read_only=True) as uow:
            corpus = job.recipe.get("corpus") or ""
            texts = read_passages(uow, self._artifacts, corpus, [passage.id for passage in example.passages])
            writers = [
                _writer(uow, made, wrote)
                for wrote in (reply.generator if reply else example.generator, example.generator)
            ]
        path = (instructions, responses, chosen) if example.origin is Origin.GENERATED else (chosen,)
        return RowLineage(
            job=job_id,
            stage=chosen,
            row=number,
            example=example,
            seeds=tuple(_in_order(read_seeds(self._artifacts, seed_set), example.seed_ids)),
            passages=tuple(_whole(passage, texts.get(passage.id)) for passage in example.passages),
            instruction_writer=writers[0],
            response_writer=writers[1],
            reply=reply,
            answer=answer,
            was=from_row(Texts, found[WAS]) if WAS in found else None,
            artifacts={"seeds": seed_set, **{name: made.digests[name] for name in path}},
        )

    def seed_rows(self, seed_id: str, *, after: str | None = None, limit: int = 100) -> SeedRows:
        """Jobs, adapters and training rows that a seed led to; raises NotFound, and InvalidInput for ``after``."""
        with self._database.session(read_only=True) as uow:
            jobs = uow.seed_uses.jobs(seed_id)
            if not jobs:
                raise NotFound(f"there is no seed {seed_id!r} that was sent to a job", param="seed_id")
            made = {job.id: Made.of(uow, job) for job in jobs}
            datasets = {job.id: find_dataset(uow, job, made[job.id]) for job in jobs}
            learned = {job.id: made[job.id].digests.get(datasets[job.id] or "", "") for job in jobs}
            views = tuple(self._seed_job(uow, job, seed_id, learned[job.id]) for job in jobs)
            digests = [uow.seed_sets.get(job.seed_set_id).artifact_digest for job in jobs]
        first_job, first_row = _read_cursor(after, [job.id for job in jobs])
        rows: list[SeedRow] = []
        for job in jobs[first_job:]:
            start = first_row if job.id == jobs[first_job].id else 0
            rows += islice(self._rows_with(job.id, learned[job.id], seed_id, start), limit + 1 - len(rows))
        last = rows[limit - 1] if len(rows) > limit else None
        return SeedRows(
            id=seed_id,
            seed=self._find_seed(digests, seed_id),
            jobs=views,
            rows=tuple(rows[:limit]),
            next=f"{last.job}:{last.row}" if last else None,
        )

    def _open(self, made: Made, stage: str) -> Artifact:
        """Raises NotFound if it is not made, or gone."""
        digest = made.digests.get(stage)
        if digest is None:
            raise NotFound(f"the job has no {stage or 'stage of that kind'} that is whole", param="stage")
        return self._artifacts.open(digest, kind=made.kinds[stage])

    def _answer(self, candidates: Artifact, responses: Artifact, example: Example) -> Answer | None:
        """Answers stand in the order of the candidates."""
        ids = (from_row(Candidate, row).id for row in candidates.rows())
        position = next((position for position, each in enumerate(ids) if each == example.id), None)
        if position is None:
            return None
        return next(islice(_records(responses, ANSWERS, Answer), position, None), None)

    def _seed_job(self, uow: UnitOfWork, job: Job, seed_id: str, dataset: str) -> SeedJob:
        is_held_out = self._is_held_out(uow, job, seed_id)
        has_learned = job.adapter_id and is_held_out is False and self._is_left(job.id, dataset, seed_id)
        adapter = uow.adapters.get(job.adapter_id) if job.adapter_id and has_learned else None
        learner = Writer(adapter.id, adapter.name) if adapter else None
        return SeedJob(job.id, job.domain, job.status, is_held_out, learner)

    def _is_held_out(self, uow: UnitOfWork, job: Job, seed_id: str) -> bool | None:
        if job.evaluation_set_id and not chooses(Recipe.model_validate(job.recipe)):
            return False
        try:
            return all(seed.id != seed_id for seed in read_split(uow, job, self._artifacts).training)
        except NotFound:
            return None

    def _is_left(self, job_id: str, dataset: str, seed_id: str) -> bool:
        """Whether a review, if there was one, left a row that the seed led to."""
        try:
            artifact = self._artifacts.open(dataset, kind=DATASET)
        except NotFound:
            return True
        return not is_reviewed(artifact) or any(self._rows_with(job_id, dataset, seed_id, 0))

    def _rows_with(self, job_id: str, digest: str, seed_id: str, start: int) -> Iterator[SeedRow]:
        """Rows of a dataset from number ``start`` on that the seed led to; only lines that name it are parsed."""
        try:
            path = self._artifacts.open(digest, kind=DATASET).folder / ROWS
        except NotFound:
            return
        mark = seed_id.encode(errors="replace")
        with path.open("rb") as file:
            for number, line in islice(enumerate(file), start, None):
                if mark not in line:
                    continue
                found = json.loads(line)
                row = from_row(Example, found)
                if seed_id in row.seed_ids:
                    texts = (row.instruction, row.input, row.output)
                    yield SeedRow(job_id, number, row.id, row.origin, row.task, *texts, is_edited=WAS in found)

    def _find_seed(self, digests: Iterable[str], seed_id: str) -> Seed | None:
        for digest in dict.fromkeys(digests):
            with suppress(NotFound):
                return next(seed for seed in read_seeds(self._artifacts, digest) if seed.id == seed_id)
        return None


def _find_row(dataset: Artifact, job_id: str, row: str) -> tuple[int, dict[str, Any]]:
    places = row_places(dataset.folder / ROWS)
    if row.isascii() and row.isdecimal() and len(row) < _ID_CHARS:
        found = next(enumerate(places.rows(int(row), 1), start=int(row)), None)
    else:
        found = next((each for each in enumerate(dataset.rows()) if each[1]["id"] == row), None)
    if found is not None:
        return found
    last = len(places) - 1
    raise NotFound(f"the dataset of job {job_id} has {last + 1} rows, 0 to {last}; none is {row}", param="row")


def _records(artifact: Artifact, file: str, kind: type[T]) -> Iterator[T]:
    return (from_row(kind, row) for row in read_lines(artifact.folder / file))


def _with_merged(answer: Answer | None, output: str) -> Answer | None:
    """``output``: of the row as it was made, which may be no single answer's."""
    return answer if answer is None or tidy(answer.text) == output else replace(answer, merged=output)


def _in_order(seeds: Iterable[Seed], ids: Sequence[str]) -> Iterator[Seed]:
    """Those of the ids, in the ids' order; one that is gone is left out."""
    wanted = set(ids)
    found = {seed.id: seed for seed in seeds if seed.id in wanted}
    return (found[seed_id] for seed_id in ids if seed_id in found)


def _whole(passage: Passage, text: Passage | None) -> Passage:
    return replace(passage, title=text.title, text=text.text) if text else passage


def _writer(uow: UnitOfWork, made: Made, id: str) -> Writer:
    """By id; a stage's adapter goes by the first digits of its artifact's digest."""
    if id in ("user", "base"):
        return Writer(id)
    stage = next((name for name, digest in made.digests.items() if digest.startswith(id)), None)
    with suppress(NotFound):
        return Writer(id, uow.adapters.get(id).name, stage)
    return Writer(id, None, stage)


def _read_cursor(after: str | None, jobs: Sequence[str]) -> tuple[int, int]:
    """Which of the jobs and which of its rows to go on with."""
    if after is None:
        return 0, 0
    job, _, row = after.rpartition(":")
    if job not in jobs or not (row.isascii() and row.isdecimal()):
        raise InvalidInput([Problem("after", "is no `next` of this list", source="query")])
    return jobs.index(job), int(row) + 1
