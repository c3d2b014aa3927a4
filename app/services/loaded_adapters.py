"""Adapters that an operator loaded from a folder under a name, without a job: they last as long as this process.

The engine knows such an adapter by the digest of its files, so another content is another adapter, whatever its name.
Knows nothing of who may load: that is checked before. Files are read only below the allowed roots.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from app.core.errors import AdapterRefused, Conflict, Forbidden, NotFound
from app.core.ports import Engine
from app.pipeline.adapter import TEMPLATE
from app.pipeline.template import ALPACA, Template
from app.services.adapters import find_adapter
from app.storage.database import Database

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FILES = (CONFIG, WEIGHTS, "selfspec.json", TEMPLATE)  # what is read; the last two may be missing
ROOTS_SETTING = "SELFSPEC_ADAPTER_ROOTS"

Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """One loaded adapter; ``id`` is its name in the engine."""

    name: str
    id: str
    folder: Path
    template: Template
    created_at: datetime
    signature: Signature  # of the files when they were read: name, inode, bytes, time of the last change


class LoadedAdapters:
    """The names loaded in this process. Every method may be called by any thread; ``load`` takes as long as a disk."""

    def __init__(
        self, database: Database, engine: Engine, *, roots: Sequence[Path], clock: Callable[[], datetime]
    ) -> None:
        self._database, self._engine, self._clock = database, engine, clock
        self._roots = tuple(root.resolve() for root in roots)
        self._by_name: dict[str, Loaded] = {}
        self._changing = threading.Lock()  # one load or unload at a time; reading a dict needs none

    def load(self, name: str, path: str, *, replace: bool = False) -> Loaded:
        """Read, prove and name an adapter. ``replace`` lets a loaded name get another content.

        Raises Forbidden for a path outside the roots, NotFound if no adapter is there, Conflict for a name that is
        taken, AdapterRefused for an adapter that does not fit, NotReady while the base loads.
        """
        with _reading(path):
            folder = self._allowed(path)
        self._check_free(name)
        with self._changing:
            before = self._by_name.get(name)
            if before is not None and not replace:
                raise Conflict(f"adapter {name!r} is loaded already; load_inplace replaces it", param="lora_name")
            with _reading(path):
                loaded = self._read(name, folder)
            self._engine.attach(loaded.id, folder)
            self._by_name[name] = loaded
            if before is not None:
                self._detach_unused(before)
        return loaded

    def unload(self, name: str) -> Loaded:
        """Forget a name; requests under way still end. Raises NotFound."""
        with self._changing:
            if (loaded := self._by_name.pop(name, None)) is None:
                raise NotFound(f"no adapter is loaded as {name!r}; loaded: {self._names()}", param="lora_name")
            self._detach_unused(loaded)
        return loaded

    def find(self, name: str) -> Loaded | None:
        """The adapter of that name, or None. Raises Conflict if its files are not those that were loaded."""
        loaded = self._by_name.get(name)
        if loaded is not None and self._signature(loaded.folder) != loaded.signature:
            raise Conflict(
                f"the files of {name!r} changed after it was loaded; load it again with load_inplace", param="model"
            )
        return loaded

    def list(self) -> tuple[Loaded, ...]:
        """All, by name."""
        return tuple(sorted(self._by_name.values(), key=lambda loaded: loaded.name))

    def _allowed(self, path: str) -> Path:
        """The folder behind ``path``, links followed, if it and its files lie under a root."""
        folder = Path(path).resolve()
        for place in (folder, *(folder / name for name in FILES)):
            if not any(place.resolve().is_relative_to(root) for root in self._roots):
                roots = ", ".join(map(str, self._roots)) or "none"
                raise Forbidden(
                    f"{path} is not under a folder that adapters may be loaded from ({ROOTS_SETTING}: {roots})",
                    param="lora_path",
                )
        if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
            raise NotFound(f"no adapter found at {path}: {CONFIG} and {WEIGHTS} are needed", param="lora_path")
        return folder

    def _check_free(self, name: str) -> None:
        """Raise Conflict if ``name`` is the base's, a domain's or a version's."""
        owner = "the base" if name == self._engine.wait_ready(0).name else None
        with self._database.session(read_only=True) as uow, suppress(NotFound):
            if uow.domains.find(name) is not None:
                owner = "a domain"
            elif owner is None:
                owner = f"adapter {find_adapter(uow, name).name}"
        if owner is not None:
            raise Conflict(f"{name!r} is the name of {owner}; load the adapter under another", param="lora_name")

    def _read(self, name: str, folder: Path) -> Loaded:
        signature = self._signature(folder)
        digest = hashlib.sha256()
        for file, *_ in signature:
            with (folder / file).open("rb") as opened:
                digest.update(file.encode() + hashlib.file_digest(opened, "sha256").digest())
        template = _template(folder)
        return Loaded(name, f"loaded-{digest.hexdigest()[:16]}", folder, template, self._clock(), signature)

    def _signature(self, folder: Path) -> Signature:
        paths = [path for name in FILES if (path := folder / name).is_file()]
        found = [(path.name, path.stat()) for path in paths]
        return tuple((name, status.st_ino, status.st_size, status.st_mtime_ns) for name, status in found)

    def _detach_unused(self, loaded: Loaded) -> None:
        if all(other.id != loaded.id for other in self._by_name.values()):
            self._engine.detach(loaded.id)

    def _names(self) -> str:
        return ", ".join(sorted(self._by_name)) or "none"


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """What the file system objects to is said about ``path``; pathlib says RuntimeError of links in a circle."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise AdapterRefused(f"cannot read the adapter at {path}: {error}", param="lora_path") from error


def _template(folder: Path) -> Template:
    """The one stored with the adapter, if it has one."""
    if not (folder / TEMPLATE).is_file():
        return ALPACA
    try:
        return Template.from_dict(json.loads((folder / TEMPLATE).read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError) as error:
        raise AdapterRefused(f"{TEMPLATE} holds no usable template: {error!r}", param="lora_path") from error
