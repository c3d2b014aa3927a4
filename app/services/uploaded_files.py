"""Files as OpenAI's API keeps them: taken in, shown, handed back as they came, and deleted. Knows nothing of HTTP.

A file of labelled examples (``CHECKED``) is read at once, so that it is refused with its lines while whoever sent it
looks on. Files that jobs were given by another door, or made, have ids too: see ``job_files``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from app.core.errors import Conflict, InvalidInput, NotFound, Problem
from app.models import UploadedFile
from app.services.ids import new_id
from app.services.job_files import FileContent, FileView, find_job_file
from app.services.seed_checks import check_duplicates, refuse
from app.services.seed_files import Upload
from app.services.seeds import Limits, read_seeds, unusable_text
from app.services.views import Page
from app.storage.artifacts import Artifact, ArtifactStore
from app.storage.database import Database
from app.storage.disk import disk_errors
from app.storage.store_files import StoreFiles

KIND = "file"
CHECKED = ("fine-tune", "selfspec-seeds", "selfspec-evaluation")
PURPOSES = (*CHECKED, "evals", "user_data")
SOURCE = "file"  # what problems call it
_CONTENT = "content"
_MAX_NAME_CHARS = 255
_LIFETIME_SECONDS = range(3600, 2_592_001)  # OpenAI's: an hour to thirty days


@dataclass(frozen=True, slots=True)
class Lifetime:
    """When a file is to be deleted, as it was asked for."""

    anchor: str | None
    seconds: str | None


class UploadedFiles:
    """Keeps files; every method may block on disk and database."""

    def __init__(
        self, database: Database, artifacts: ArtifactStore, *, clock: Callable[[], datetime], limits: Limits
    ) -> None:
        self._database, self._artifacts, self._clock, self._limits = database, artifacts, clock, limits

    def add(self, upload: Upload, *, purpose: str | None, lifetime: Lifetime | None = None) -> FileView:
        """Check and store. Raises InvalidInput with the lines at fault, TooLarge for too many examples."""
        refuse([*_name_problems(upload.filename), *_purpose_problems(purpose), *_lifetime_problems(lifetime)])
        self._check(upload, purpose or "")
        now = self._clock()
        file_id = new_id("file", now)
        artifact = self._store(upload.data, file_id)
        file = UploadedFile(
            id=file_id,
            purpose=purpose or "",
            filename=upload.filename,
            num_bytes=len(upload.data),
            artifact_digest=artifact.digest,
            created_at=now,
            expires_at=now + timedelta(seconds=int(lifetime.seconds or 0)) if lifetime else None,
        )
        with self._database.session() as uow:
            uow.artifacts.record(artifact, now=now)
            uow.files.add(file)
            uow.commit()
        return _view(file)

    def list(
        self, *, after: str | None = None, limit: int = 20, purpose: str | None = None, oldest_first: bool = False
    ) -> Page[FileView]:
        """Files that were sent, the newest first unless ``oldest_first``; NotFound if there is no file ``after``."""
        with self._database.session(read_only=True) as uow:
            files = uow.files.list(
                now=self._clock(), after=after, limit=limit + 1, purpose=purpose, oldest_first=oldest_first
            )
        views = tuple(_view(file) for file in files[:limit])
        return Page(views, views[-1].id if len(files) > limit else None)

    def get(self, file_id: str) -> FileView:
        """One file, sent or a job's; raises NotFound."""
        if (found := find_job_file(self._database, self._artifacts, file_id)) is not None:
            return found[0]
        with self._database.session(read_only=True) as uow:
            return _view(uow.files.get(file_id, now=self._clock()))

    def content(self, file_id: str) -> FileContent:
        """Its bytes, as they came; raises NotFound."""
        if (found := find_job_file(self._database, self._artifacts, file_id)) is not None:
            return found[1]
        with self._database.session(read_only=True) as uow:
            file = uow.files.get(file_id, now=self._clock())
        return FileContent(file.filename, self._path(file.artifact_digest, file_id))

    def delete(self, file_id: str) -> None:
        """Forget it and what it holds. Raises NotFound, Conflict if an open job was given it, or if it is a job's."""
        if find_job_file(self._database, self._artifacts, file_id) is not None:
            raise Conflict(f"{file_id} belongs to a job and stays as long as the job's files do", param="file_id")
        with self._database.session() as uow:
            file = uow.files.get(file_id, now=self._clock())
            if waiting := uow.fine_tunings.waiting_for(file_id):
                told = f"{', '.join(waiting[:3])} was given {file_id} and has not ended: cancel it first"
                raise Conflict(told, param="file_id")
            uow.files.delete(file)
            uow.retention.note_removed([file.artifact_digest], now=self._clock())
            uow.commit()
        StoreFiles(self._artifacts.root).remove(KIND, file.artifact_digest)

    def _check(self, upload: Upload, purpose: str) -> None:
        if purpose in CHECKED:
            items = read_seeds(upload, source=SOURCE, limits=self._limits)
            refuse([*items.problems, *check_duplicates(items)])
        elif not upload.data:
            raise InvalidInput([Problem(SOURCE, "is empty", source=SOURCE)])

    def _store(self, data: bytes, file_id: str) -> Artifact:
        """An artifact of its own, whatever other files hold: so it can be deleted with the file."""
        with self._artifacts.brief_draft(KIND) as draft:
            with disk_errors(draft):
                (draft / _CONTENT).write_bytes(data)
            return self._artifacts.commit(draft, kind=KIND, recipe={"file": file_id}, parents=[])

    def _path(self, digest: str, file_id: str) -> Path:
        try:
            return self._artifacts.open(digest, kind=KIND).folder / _CONTENT
        except NotFound as error:
            raise NotFound(f"the content of {file_id} is not in the artifact store", param="file_id") from error


def _name_problems(filename: str) -> list[Problem]:
    if not filename:
        return [Problem(SOURCE, "has no name: send it as a file, as in: curl -F file=@seeds.jsonl")]
    if len(filename) > _MAX_NAME_CHARS:
        return [Problem(SOURCE, f"its name is {len(filename):,} characters long; at most {_MAX_NAME_CHARS}")]
    fault = unusable_text(filename)
    return [Problem(SOURCE, f"its name {fault}")] if fault else []


def _purpose_problems(purpose: str | None) -> list[Problem]:
    if purpose in PURPOSES:
        return []
    there_are = f"there are: {', '.join(PURPOSES)}; a corpus is sent to POST /corpora"
    return [Problem("purpose", "is missing; " + there_are if purpose is None else f"unknown {purpose!r}; {there_are}")]


def _lifetime_problems(lifetime: Lifetime | None) -> list[Problem]:
    if lifetime is None:
        return []
    problems = []
    if lifetime.anchor != "created_at":
        problems.append(Problem("expires_after.anchor", "must be created_at"))
    text = lifetime.seconds or ""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) in _LIFETIME_SECONDS):
        problems.append(Problem("expires_after.seconds", "must be a number of seconds from 3600 to 2592000"))
    return problems


def _view(file: UploadedFile) -> FileView:
    return FileView(
        id=file.id,
        filename=file.filename,
        purpose=file.purpose,
        num_bytes=file.num_bytes,
        created_at=file.created_at,
        expires_at=file.expires_at,
    )
