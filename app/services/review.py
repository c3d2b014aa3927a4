"""People look at the rows of a dataset before it is learned: they change, delete and restore rows while the job waits.

What was made stays as it was. When the job is let go, the changed rows become a dataset of their own whose parent is
the one that was made; where nothing was changed, nothing is made.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from app.core.errors import Conflict, NotFound
from app.core.records import Example
from app.core.states import StageStatus, WaitsFor
from app.models import Job
from app.pipeline.rows import from_row
from app.services.dataset_rows import EDITS, WAS, Edits, OpenDataset, Place, RowView, Texts
from app.services.job_stages import DATASET, Made, held_stage
from app.services.row_checks import RowChecker
from app.storage.artifacts import ROWS, Artifact, ArtifactStore, append_rows
from app.storage.database import Database, UnitOfWork

REVIEWED = "reviewed"  # key of a dataset stage's detail: how many rows were changed and deleted


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A dataset to go on with. ``artifact`` None: what was made is gone, so it is made and looked at again."""

    place: Place
    edits: Edits
    artifact: Artifact | None
    num_rows: int


class Review:
    """Changes rows of jobs that wait for it, and lets such a job go; every method may block on disk and database."""

    def __init__(
        self, database: Database, artifacts: ArtifactStore, *, checker: RowChecker, clock: Callable[[], datetime]
    ) -> None:
        self._database, self._artifacts, self._checker, self._clock = database, artifacts, checker, clock

    def edit(self, job_id: str, index: int, given: Mapping[str, object], *, stage: str | None = None) -> RowView:
        """Change texts of a row. Raises NotFound, InvalidInput, Conflict if it is deleted or the job is not held."""
        changes = self._checker.read_changes(given)
        found, made = self._find(job_id, index, stage)
        with self._database.session(read_only=True) as uow:
            texts = _changed(_edit(uow, found.place, index), made, index, changes)
        self._checker.check(found.place.job, replace(from_row(Example, made), **asdict(texts)))
        with self._holding(found.place) as uow:
            texts = _changed(_edit(uow, found.place, index), made, index, changes)
            if texts == from_row(Texts, made):
                uow.row_edits.remove(job_id, found.place.stage, index)
            else:
                uow.row_edits.put(job_id, found.place.stage, index, asdict(texts), now=self._clock())
            return RowView.of(index, made, _edit(uow, found.place, index))

    def delete(self, job_id: str, index: int, *, stage: str | None = None) -> RowView:
        """Leave a row out, with whatever was changed in it. Raises NotFound, Conflict if the job is not held."""
        found, made = self._find(job_id, index, stage)
        with self._holding(found.place) as uow:
            uow.row_edits.put(job_id, found.place.stage, index, None, now=self._clock())
        return RowView.of(index, made, {index: None})

    def restore(self, job_id: str, index: int, *, stage: str | None = None) -> RowView:
        """Have a row as it was made. Raises NotFound, Conflict if the job is not held."""
        found, made = self._find(job_id, index, stage)
        with self._holding(found.place) as uow:
            uow.row_edits.remove(job_id, found.place.stage, index)
        return RowView.of(index, made, {})

    def prepare(self, job_id: str) -> Reviewed | None:
        """Write what a job that is held would go on with; None if it is not held. Raises Conflict if no row is left.

        Files only: nothing points at them before ``settle``.
        """
        with self._database.session(read_only=True) as uow:
            job = uow.jobs.get(job_id)
            if (stage := held_stage(job)) is None:
                return None
            place = Place.of(uow, job, stage)
            edits = uow.row_edits.list(job_id, stage)
        try:
            found = OpenDataset.at(place, self._artifacts)
        except NotFound:
            return Reviewed(place, edits, None, 0)
        num_rows = len(found.places) - sum(edit is None for edit in edits.values())
        if num_rows == 0:
            told = f"all {len(found.places)} rows of {stage} are deleted: restore some, or cancel job {job_id}"
            raise Conflict(told, param="rows")
        artifact = self._make(found, edits) if edits else found.made
        return Reviewed(place, edits, artifact, num_rows)

    def settle(self, uow: UnitOfWork, job: Job, reviewed: Reviewed | None, *, now: datetime) -> None:
        """The job, whose row this transaction holds, goes on with what was prepared; raises Conflict if that is old."""
        stage = held_stage(job)
        if stage is None:
            return
        now_held = (stage, uow.row_edits.list(job.id, stage))
        if reviewed is None or (reviewed.place.stage, reviewed.edits) != now_held:
            raise Conflict(f"rows of {stage} came or changed this moment: look at them, then resume", param="rows")
        if reviewed.artifact is None:
            return
        artifact, counts = reviewed.artifact, _counts(reviewed.edits)
        uow.artifacts.record(artifact, now=now, job_id=job.id, stage=stage)
        uow.stage_runs.replace_product(job.id, stage, artifact_digest=artifact.digest, detail={REVIEWED: counts})
        told = f"rows changed: {counts['edited']}, deleted: {counts['deleted']}; {reviewed.num_rows} are learned"
        data = {**counts, "rows": reviewed.num_rows, "artifact": artifact.digest}
        uow.events.add(job.id, "rows_reviewed", told, now=now, stage=stage, data=data)

    def hold_again(self, uow: UnitOfWork, job: Job, *, now: datetime) -> None:
        """A job that was ended while it was held, and is queued again, is held again."""
        if not job.recipe.get("review") or job.stage is None:
            return
        run = uow.stage_runs.get(job.id, job.stage)
        is_made = Made.of(uow, job).kinds.get(job.stage) == DATASET and run.status is StageStatus.SUCCEEDED
        if is_made and REVIEWED not in run.detail:
            uow.jobs.note_wait(job.id, WaitsFor.REVIEW)
            told = f"the rows of {job.stage} still wait to be looked at"
            uow.events.add(job.id, "review_wanted", told, now=now, stage=job.stage)

    def _find(self, job_id: str, index: int, stage: str | None) -> tuple[OpenDataset, dict[str, Any]]:
        """The dataset and its row; raises NotFound, Conflict unless it is the one that is held."""
        with self._database.session(read_only=True) as uow:
            place = Place.of(uow, uow.jobs.get(job_id), stage)
        _check_held(place, place.job)
        found = OpenDataset.at(place, self._artifacts)
        return found, found.row(index)

    @contextmanager
    def _holding(self, place: Place) -> Iterator[UnitOfWork]:
        """A transaction during which the job stays held; raises Conflict if it is not."""
        with self._database.session() as uow:
            _check_held(place, uow.jobs.get(place.job.id, for_update=True))
            yield uow
            uow.commit()

    def _make(self, found: OpenDataset, edits: Edits) -> Artifact:
        """The dataset with its edits, as an artifact. The same edits make the same one, whoever asks."""
        made = found.made
        with self._artifacts.brief_draft("put") as draft:
            append_rows(draft / ROWS, _learned(made, edits))
            append_rows(draft / EDITS, ({"index": index, "row": edit} for index, edit in edits.items()))
            for name in made.manifest["files"].keys() - {ROWS}:
                shutil.copyfile(made.folder / name, draft / name)
            recipe, meta = made.manifest["recipe"], {REVIEWED: _counts(edits)}
            return self._artifacts.commit(draft, kind=DATASET, recipe=recipe, parents=[made.digest], meta=meta)


def _learned(made: Artifact, edits: Edits) -> Iterator[dict[str, Any]]:
    """The rows as they will be learned; one that was changed keeps its id, and what it was."""
    for index, row in enumerate(made.rows()):
        if index not in edits:
            yield row
        elif (edit := edits[index]) is not None:
            yield {**row, **edit, WAS: asdict(from_row(Texts, row))}


def _edit(uow: UnitOfWork, place: Place, index: int) -> Edits:
    return uow.row_edits.list(place.job.id, place.stage, first=index, limit=1)


def _changed(edits: Edits, made: Mapping[str, Any], index: int, changes: Mapping[str, str]) -> Texts:
    before = RowView.of(index, made, edits)
    if before.is_deleted:
        raise Conflict(f"row {index} is deleted: restore it, then change it", param="index")
    return replace(Texts(before.instruction, before.input, before.output), **changes)


def _counts(edits: Edits) -> dict[str, int]:
    num_deleted = sum(edit is None for edit in edits.values())
    return {"edited": len(edits) - num_deleted, "deleted": num_deleted}


def _check_held(place: Place, job: Job) -> None:
    held = held_stage(job)
    if held == place.stage:
        return
    if held is not None:
        raise Conflict(f"job {job.id} holds {held} for review: the rows of {place.stage} are learned", param="stage")
    told = f"rows can be changed only while their job waits for review; job {job.id} is {job.status}"
    remedy = "" if job.recipe.get("review") else ": ask for it with review in the recipe"
    raise Conflict(told + remedy, param="job_id")
