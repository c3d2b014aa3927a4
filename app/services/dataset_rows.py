"""The rows of a job's datasets, a page at a time: as they were made, with what people changed in a review.

A row keeps its number whatever becomes of the others. What is learned, without the rows that were deleted, is the
dataset's own artifact (see ``review``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from app.core.errors import NotFound
from app.core.records import Example, Origin
from app.models import Job
from app.pipeline.rows import from_row
from app.services.job_stages import DATASET, Made, choose_dataset, held_stage
from app.storage.artifacts import ROWS, Artifact, ArtifactStore
from app.storage.database import Database, UnitOfWork
from app.storage.row_places import RowPlaces, row_places

EDITS = "edits.jsonl"  # of a dataset that was reviewed: what people changed in its parent
WAS = "was"  # key of a learned row that was changed: its texts as they were made

Edits = Mapping[int, Mapping[str, Any] | None]  # by row: its texts, or None: it is deleted


@dataclass(frozen=True, slots=True)
class Texts:
    """What a person can change in a row."""

    instruction: str
    input: str
    output: str


@dataclass(frozen=True, slots=True)
class RowView:
    """A row with the texts that will be learned, unless it is deleted. ``was``: those it was made with, if changed."""

    index: int
    id: str
    origin: Origin
    task: str | None
    instruction: str
    input: str
    output: str
    is_edited: bool
    is_deleted: bool
    was: Texts | None

    @classmethod
    def of(cls, index: int, made: Mapping[str, Any], edits: Edits) -> Self:
        """``made``: the row as it stands in the file."""
        example, edit = from_row(Example, made), edits.get(index)
        was = Texts(example.instruction, example.input, example.output)
        now = from_row(Texts, edit) if edit is not None else was
        return cls(
            index=index,
            id=example.id,
            origin=example.origin,
            task=example.task,
            instruction=now.instruction,
            input=now.input,
            output=now.output,
            is_edited=edit is not None,
            is_deleted=index in edits and edit is None,
            was=was if edit is not None else None,
        )


@dataclass(frozen=True, slots=True)
class RowPage:
    """Some rows of one dataset; ``next`` is the ``after`` of the rows behind these, None at the end."""

    job: str
    stage: str
    is_open: bool  # its rows can be changed now
    num_rows: int  # as it was made
    num_edited: int
    num_deleted: int
    data: tuple[RowView, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a dataset of a job is. ``digest``: of what is learned, be it reviewed or as it was made."""

    job: Job
    stage: str
    digest: str

    @classmethod
    def of(cls, uow: UnitOfWork, job: Job, stage: str | None) -> Self:
        """``stage`` None: the dataset that the job is about. Raises NotFound."""
        made = Made.of(uow, job)
        chosen = choose_dataset(uow, job, made, stage)
        return cls(job, chosen, made.digests[chosen])


@dataclass(frozen=True, slots=True)
class OpenDataset:
    """A dataset as it was made, also if a reviewed one has taken its place."""

    place: Place
    made: Artifact
    places: RowPlaces

    @classmethod
    def at(cls, place: Place, artifacts: ArtifactStore) -> Self:
        """Raises NotFound if its files are gone."""
        artifact = artifacts.open(place.digest, kind=DATASET)
        if is_reviewed(artifact):
            artifact = artifacts.open(artifact.parents[0], kind=DATASET)
        return cls(place, artifact, row_places(artifact.folder / ROWS))

    def row(self, index: int) -> dict[str, Any]:
        """Raises NotFound."""
        found = next(self.places.rows(index, 1), None) if index >= 0 else None
        if found is None:
            last = len(self.places) - 1
            told = f"{self.place.stage} of job {self.place.job.id} has {last + 1} rows, 0 to {last}; none is {index}"
            raise NotFound(told, param="index")
        return found


class DatasetRows:
    """Reads store and database; every method may block on them."""

    def __init__(self, database: Database, artifacts: ArtifactStore) -> None:
        self._database, self._artifacts = database, artifacts

    def page(self, job_id: str, *, stage: str | None = None, after: int = -1, limit: int = 100) -> RowPage:
        """Rows behind number ``after`` of the newest dataset, or of ``stage``; raises NotFound."""
        with self._database.session(read_only=True) as uow:
            place = Place.of(uow, uow.jobs.get(job_id), stage)
            edits = uow.row_edits.list(job_id, place.stage, first=after + 1, limit=limit)
            num_edited, num_deleted = uow.row_edits.count(job_id, place.stage)
        found = OpenDataset.at(place, self._artifacts)
        rows = enumerate(found.places.rows(after + 1, limit), start=after + 1)
        views = tuple(RowView.of(index, row, edits) for index, row in rows)
        is_more = after + 1 + limit < len(found.places)
        return RowPage(
            job=job_id,
            stage=place.stage,
            is_open=held_stage(place.job) == place.stage,
            num_rows=len(found.places),
            num_edited=num_edited,
            num_deleted=num_deleted,
            data=views,
            next=str(after + limit) if is_more else None,
        )

    def row(self, job_id: str, index: int, *, stage: str | None = None) -> RowView:
        """One row by its number; raises NotFound."""
        with self._database.session(read_only=True) as uow:
            place = Place.of(uow, uow.jobs.get(job_id), stage)
            edits = uow.row_edits.list(job_id, place.stage, first=index, limit=1)
        return RowView.of(index, OpenDataset.at(place, self._artifacts).row(index), edits)


def is_reviewed(dataset: Artifact) -> bool:
    """Whether it was made from another dataset by what people changed."""
    return EDITS in dataset.manifest["files"]
