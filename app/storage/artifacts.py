"""The artifact store: immutable folders named by digest, each whole or not there.

    root/tmp/<job>/<attempt>/<stage>/…  a draft: grows, survives a kill, is taken up by the next attempt
    root/<kind>/<digest>/…              an artifact
    root/<kind>/<digest>/manifest.json  written last: its presence says that the artifact is whole

The digest covers kind, recipe, parents and the names and contents of the files: the same thing made the same way has
the same digest, in every job. Knows nothing about what the files mean, nor about the database.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.errors import ArtifactDamaged, DiskFull, NotFound
from app.storage.disk import disk_errors, locked, sync, write_whole
from app.storage.rows import append_rows, read_rows, truncate_last, truncate_torn

__all__ = [
    "MANIFEST",
    "ROWS",
    "Artifact",
    "ArtifactStore",
    "append_rows",
    "read_rows",
    "truncate_last",
    "truncate_torn",
]

MANIFEST = "manifest.json"
ROWS = "rows.jsonl"  # the file of an artifact that is one table
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")

Files = dict[str, dict[str, Any]]  # relative name → {"sha256": …, "num_bytes": …}


@dataclass(frozen=True, slots=True)
class Artifact:
    """One committed artifact. ``num_bytes`` counts its files without the manifest."""

    digest: str
    kind: str
    folder: Path
    manifest: dict[str, Any]
    num_bytes: int

    @property
    def parents(self) -> tuple[str, ...]:
        """Digests of the artifacts this one was made from."""
        return tuple(self.manifest["parents"])

    @property
    def meta(self) -> dict[str, Any]:
        """What its maker noted beside the recipe; not part of the digest."""
        return dict(self.manifest["meta"])

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of a one-table artifact."""
        return read_rows(self.folder / ROWS)


class ArtifactStore:
    """A folder of artifacts; several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def draft(self, job_id: str, stage: str, *, attempt: int | None = None) -> Path:
        """The folder a stage works in: made if it is new, else as it was left.

        That of an attempt can be had only while the attempt has a place (``adopt``); raises FileNotFoundError.
        """
        folder = self._drafts(job_id) / _attempt(attempt) / _checked(stage)
        with disk_errors(folder):
            folder.mkdir(parents=attempt is None, exist_ok=True)
        return folder

    @contextmanager
    def brief_draft(self, purpose: str) -> Iterator[Path]:
        """A new draft of what is no job; what is left of it goes when the context ends."""
        draft = self.draft(purpose, uuid.uuid4().hex)
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def adopt(self, job_id: str, *, attempt: int) -> None:
        """Give an attempt its place, with the drafts of the last one in it, which then has none.

        Call it under the lease. Whoever still works on an earlier attempt finds its folders gone; a file that it holds
        open is no longer the draft's, because each is replaced by a copy.
        """
        home, place = self._drafts(job_id), self._drafts(job_id) / _attempt(attempt)
        with disk_errors(place):
            left = [earlier for number in range(attempt) if (earlier := home / _attempt(number)).is_dir()]
            for earlier in reversed(left):
                if place.exists():
                    self._remove(earlier)
                else:
                    earlier.rename(place)
            place.mkdir(parents=True, exist_ok=True)
            for path in [path for path in place.rglob("*") if path.is_file()]:
                shutil.copyfile(path, home / "copy")
                (home / "copy").replace(path)

    def commit(
        self,
        draft: Path,
        *,
        kind: str,
        recipe: Mapping[str, Any],
        parents: Sequence[str],
        meta: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """Make a draft an artifact; the draft is gone afterwards.

        If the same artifact is there it stays (with its first ``meta``), unless it is damaged: then it is replaced.
        Raises NotFound if the draft is missing or empty, DiskFull.
        """
        with disk_errors(self.root):
            files = _scan(draft, lasting=True)
            if not files:
                raise NotFound(f"nothing to commit in {draft}")
            body = {"kind": _checked(kind), "recipe": dict(recipe), "parents": list(parents), "files": files}
            digest = hashlib.sha256(_canonical(body)).hexdigest()
            folder = self._folder(kind, digest)
            manifest = json.dumps({"digest": digest, **body, "meta": dict(meta or {})}, indent=1).encode()
            write_whole(draft / MANIFEST, manifest)
            with locked(self.root, exclusive=False):  # nobody takes it away before it counts as used now
                self._put(draft, folder, files)
                if not (folder / MANIFEST).exists():
                    write_whole(folder / MANIFEST, manifest)
                os.utime(folder / MANIFEST)
            shutil.rmtree(draft, ignore_errors=True)
        return self.open(digest, kind=kind)

    def put_rows(
        self,
        rows: Iterable[object],
        *,
        kind: str,
        recipe: Mapping[str, Any] | None = None,
        parents: Sequence[str] = (),
        meta: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """Commit rows (mappings or records) as a one-table artifact."""
        with self.brief_draft("put") as draft:
            append_rows(draft / ROWS, rows)
            return self.commit(draft, kind=kind, recipe=recipe or {}, parents=parents, meta=meta)

    def open(self, digest: str, *, kind: str) -> Artifact:
        """A committed artifact; raises NotFound without a manifest. Does not read the files: see ``verify``."""
        if not _DIGEST.fullmatch(digest):
            raise NotFound(f"{digest!r} is not an artifact's digest", param="digest")
        folder = self._folder(kind, digest)
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            num_bytes = sum(file["num_bytes"] for file in manifest["files"].values())
        except FileNotFoundError as error:
            raise NotFound(f"there is no artifact {kind}/{digest}", param="digest") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactDamaged(f"artifact {kind}/{digest}: its manifest cannot be read") from error
        return Artifact(digest=digest, kind=kind, folder=folder, manifest=manifest, num_bytes=num_bytes)

    def verify(self, artifact: Artifact) -> None:
        """Read every file again; raises ArtifactDamaged naming those that changed, are missing or were added."""
        told, found = artifact.manifest["files"], _scan(artifact.folder)
        wrong = sorted(name for name in told.keys() | found.keys() if told.get(name) != found.get(name))
        body = {key: artifact.manifest.get(key) for key in ("kind", "recipe", "parents", "files")}
        if not wrong and hashlib.sha256(_canonical(body)).hexdigest() != artifact.digest:
            wrong = [MANIFEST]
        if wrong:
            raise ArtifactDamaged(f"artifact {artifact.kind}/{artifact.digest} is damaged: {', '.join(wrong)}")

    def discard(self, job_id: str) -> None:
        """Remove a job's drafts; its artifacts stay. Whoever still works on them finds them gone in one step."""
        if (drafts := self._drafts(job_id)).exists():
            with suppress(OSError, DiskFull):  # on a full disk they are deleted where they are
                self._remove(drafts)
            shutil.rmtree(drafts, ignore_errors=True)

    def _drafts(self, job_id: str) -> Path:
        return self.root / "tmp" / _checked(job_id)

    def _folder(self, kind: str, digest: str) -> Path:
        return self.root / _checked(kind) / digest

    def _put(self, draft: Path, folder: Path, files: Files) -> None:
        """Rename the draft into place, unless the same files stand there; other files there are damage and go away."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.is_dir() and _scan(folder) != files:
            self._remove(folder)
        try:
            draft.rename(folder)  # refused if something is there, and that may have come this moment
        except OSError:
            if not folder.is_dir() or _scan(folder) != files:
                raise
        sync(folder.parent)

    def _remove(self, folder: Path) -> None:
        """Out of sight in one step, then deleted."""
        with self.brief_draft("trash") as trash:
            folder.rename(trash / folder.name)


def _scan(folder: Path, *, lasting: bool = False) -> Files:
    """Name, digest and size of every file below, the manifest and temporary files left out. ``lasting`` also syncs."""
    files: Files = {}
    for path in sorted(folder.rglob("*")):
        if lasting:
            sync(path)
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST and not name.startswith(f".{MANIFEST}."):
            with path.open("rb") as file:
                files[name] = {
                    "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
                    "num_bytes": path.stat().st_size,
                }
    if lasting and files:
        sync(folder)
    return files


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _attempt(number: int | None) -> str:
    return "" if number is None else f"attempt-{number}"


def _checked(name: str) -> str:
    """A part of a path that cannot leave the store."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a folder of the artifact store")
    return name
