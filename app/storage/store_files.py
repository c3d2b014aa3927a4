"""What lies in the artifact store's folder, and how it is taken away. Knows nothing about what may go.

An artifact is hidden first (its manifest goes, so nobody can open it any more) and removed later: a kill between the
two leaves a folder without a manifest, which is nobody's and is found again. Taking away needs no free space.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import uuid
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from app.storage.artifacts import MANIFEST
from app.storage.disk import locked

_DRAFTS = "tmp"
_NO_KINDS = frozenset({_DRAFTS, "indexes"})
_DIGEST = re.compile(r"[0-9a-f]{64}")
_GONE = "gone-"  # how a folder is called that only waits for being deleted


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """An artifact's folder. ``used_at``: when it was last made, seconds since 1970; None: it has no manifest."""

    kind: str
    digest: str
    folder: Path
    num_bytes: int
    used_at: float | None


@dataclass(frozen=True, slots=True)
class Draft:
    """Unfinished files. ``owner``: a job's id, or what else was at work; ``changed_at``: seconds since 1970."""

    owner: str
    folder: Path
    num_bytes: int
    changed_at: float


class StoreFiles:
    """One store's folder; every method may block on the disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def alone(self) -> AbstractContextManager[None]:
        """While it lasts no artifact is committed, by any process."""
        return locked(self._root, exclusive=True)

    def artifacts(self) -> list[StoredArtifact]:
        """All folders that are artifacts, or were or would have been."""
        folders = [(kind.name, folder) for kind in self._kinds() for folder in _folders(kind)]
        return [_stored(kind, folder) for kind, folder in folders if _DIGEST.fullmatch(folder.name)]

    def drafts(self) -> list[Draft]:
        """Of jobs one each; of what is no job one for each piece of work."""
        found = []
        for owner in _folders(self._root / _DRAFTS):
            is_job = owner.name.startswith("job-") or owner.name.startswith(_GONE)
            found += [_draft(owner.name, folder) for folder in ([owner] if is_job else _folders(owner))]
        return found

    def hide(self, artifact: StoredArtifact, *, unless_since: float) -> bool:
        """Make it unreadable; False: it was made since then (seconds since 1970), and stays. Needs ``alone``.

        Whoever makes what is there already counts too: the database may not have been told yet.
        """
        manifest = artifact.folder / MANIFEST
        with suppress(FileNotFoundError):
            if manifest.stat().st_mtime > unless_since:
                return False
            manifest.unlink()
        return True

    def remove_hidden(self, artifact: StoredArtifact) -> None:
        """Delete the files, if nobody has made the artifact anew meanwhile."""
        with self.alone():
            if not self.is_torn(artifact):
                return
            gone = self._set_aside(artifact.folder)
            if gone is None:
                self.delete(artifact.folder)
        if gone is not None:
            self.delete(gone)

    def remove(self, kind: str, digest: str) -> None:
        """Take one artifact away, whenever it was made."""
        artifact = _stored(kind, self._root / kind / digest)
        with self.alone():
            self.hide(artifact, unless_since=math.inf)
        self.remove_hidden(artifact)

    def is_torn(self, artifact: StoredArtifact) -> bool:
        """Whether it has no manifest now."""
        return not (artifact.folder / MANIFEST).exists()

    def set_aside(self, draft: Draft) -> Path | None:
        """Where a draft lies from now on, so that a job that begins again finds none; ``delete`` it afterwards.

        None: it stays, because not even a name fits on the disk.
        """
        return self._set_aside(draft.folder)

    def delete(self, folder: Path) -> None:
        """A folder that nobody looks for any more."""
        shutil.rmtree(folder, ignore_errors=True)

    def _set_aside(self, folder: Path) -> Path | None:
        gone = self._root / _DRAFTS / f"{_GONE}{uuid.uuid4().hex}"
        with suppress(OSError):
            gone.parent.mkdir(exist_ok=True)
            return folder.rename(gone)
        return None

    def _kinds(self) -> list[Path]:
        return [folder for folder in _folders(self._root) if folder.name not in _NO_KINDS]


def is_trash(draft: Draft) -> bool:
    """Whether it was put there only to be deleted."""
    return draft.owner == "trash" or draft.owner.startswith(_GONE)


def _folders(folder: Path) -> list[Path]:
    """Those right below; none if ``folder`` is not there."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as found:
        return sorted(Path(each.path) for each in found if each.is_dir(follow_symlinks=False))
    return []


def _stored(kind: str, folder: Path) -> StoredArtifact:
    used_at = None
    with suppress(FileNotFoundError):
        used_at = (folder / MANIFEST).stat().st_mtime
    return StoredArtifact(kind, folder.name, folder, _measure(folder)[0], used_at)


def _draft(owner: str, folder: Path) -> Draft:
    return Draft(owner, folder, *_measure(folder))


def _measure(folder: Path) -> tuple[int, float]:
    """Bytes of all files below, and the newest time of change; what vanishes meanwhile does not count."""
    num_bytes, changed_at = 0, 0.0
    for parent, _, names in os.walk(folder):
        with suppress(FileNotFoundError):
            changed_at = max(changed_at, Path(parent).stat().st_mtime)
        for name in names:
            with suppress(FileNotFoundError):
                status = Path(parent, name).lstat()
                num_bytes += status.st_size
                changed_at = max(changed_at, status.st_mtime)
    return num_bytes, changed_at
