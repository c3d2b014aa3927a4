"""The artifact store: immutable folders named by digest, each whole or not there.

    root/tmp/<job>/<stage>/…            a draft: grows, survives a kill, is taken up again
    root/<kind>/<digest>/…              an artifact
    root/<kind>/<digest>/manifest.json  written last: its presence says that the artifact is whole

The digest covers kind, recipe, parents and the names and contents of the files: the same thing made the same way has
the same digest, in every job. Knows nothing about what the files mean, nor about the database.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.errors import ArtifactDamaged, NotFound
from app.storage.disk import disk_errors, sync, write_whole
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

    def draft(self, job_id: str, stage: str) -> Path:
        """The folder a stage works in: made if it is new, else as the last attempt left it."""
        folder = self.root / "tmp" / _checked(job_id) / _checked(stage)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

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
        Raises NotFound if the draft is missing or empty, SetupError if the disk is full.
        """
        with disk_errors(self.root):
            files = _scan(draft, lasting=True)
            if not files:
                raise NotFound(f"nothing to commit in {draft}")
            body = {"kind": _checked(kind), "recipe": dict(recipe), "parents": list(parents), "files": files}
            digest = hashlib.sha256(_canonical(body)).hexdigest()
            folder = self._folder(kind, digest)
            self._put(draft, folder, files)
            if not (folder / MANIFEST).exists():
                manifest = {"digest": digest, **body, "meta": dict(meta or {})}
                write_whole(folder / MANIFEST, json.dumps(manifest, ensure_ascii=True, indent=1).encode())
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
        draft = self.draft("put", uuid.uuid4().hex)
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
        """Remove a job's drafts; its artifacts stay."""
        shutil.rmtree(self.root / "tmp" / _checked(job_id), ignore_errors=True)

    def _folder(self, kind: str, digest: str) -> Path:
        return self.root / _checked(kind) / digest

    def _put(self, draft: Path, folder: Path, files: Files) -> None:
        """Rename the draft into place, unless the same files stand there; other files there are damage and go away."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        (draft / MANIFEST).unlink(missing_ok=True)
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
        trash = self.draft("trash", uuid.uuid4().hex)
        folder.rename(trash / folder.name)
        shutil.rmtree(trash, ignore_errors=True)


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


def _checked(name: str) -> str:
    """A part of a path that cannot leave the store."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a folder of the artifact store")
    return name
