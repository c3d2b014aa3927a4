"""What a base is, in 16 digits: an adapter is right only on the very weights it was trained on.

Knows files and digests, not what is in them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_COVERED = {".safetensors", ".json", ".model", ".txt"}  # weights, config, every kind of tokenizer file
_CACHE_NAME = ".digests.json"


def fingerprint(folder: Path, *, quantization: str) -> str:
    """16 hexadecimal digits over every weight, config and tokenizer byte and the quantization.

    The digests of large files are kept beside them by size and time, so that a start does not read 30 GB again.
    """
    left_out = {_CACHE_NAME, "manifest.json"}
    paths = sorted(path for path in folder.iterdir() if path.suffix in _COVERED and path.name not in left_out)
    cache = _DigestCache(folder / _CACHE_NAME)
    parts = [f"{path.name}:{cache.digest(path)}" for path in paths]
    cache.save()
    return hashlib.sha256("\n".join([*parts, quantization]).encode()).hexdigest()[:16]


class _DigestCache:
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._known: dict[str, list[Any]] = json.loads(path.read_text())
        except (OSError, ValueError):
            self._known = {}
        self._changed = False

    def digest(self, path: Path) -> str:
        stat = path.stat()
        key = [stat.st_size, stat.st_mtime_ns]
        if self._known.get(path.name, [None])[:2] != key:
            with path.open("rb") as stream:
                self._known[path.name] = [*key, hashlib.file_digest(stream, "sha256").hexdigest()]
            self._changed = True
        return str(self._known[path.name][2])

    def save(self) -> None:
        if not self._changed:
            return
        try:
            self._path.write_text(json.dumps(self._known))
        except OSError:
            log.info("no digest cache beside a read-only base")
