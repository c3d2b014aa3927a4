"""A folder as a .tar, made while it is sent: nothing is copied to disk and no file is held in memory.

Knows nothing about what the files are.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the archive: its name there, and where its bytes are or the bytes themselves."""

    name: str
    content: Path | bytes

    @property
    def num_bytes(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def tar_size(members: Sequence[Member]) -> int:
    """Bytes ``stream_tar`` will yield, for Content-Length."""
    return sum(tarfile.BLOCKSIZE + _padded(member.num_bytes) for member in members) + 2 * tarfile.BLOCKSIZE


def stream_tar(members: Sequence[Member], *, modified: int) -> Iterator[bytes]:
    """The archive in chunks; every file's time is ``modified`` (seconds since 1970), so the archive is repeatable."""
    for member in members:
        yield _header(member, modified)
        yield from _chunks(member.content)
        yield b"\0" * (_padded(member.num_bytes) - member.num_bytes)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _header(member: Member, modified: int) -> bytes:
    info = tarfile.TarInfo(member.name)
    info.size, info.mtime, info.mode = member.num_bytes, modified, 0o644
    return info.tobuf(tarfile.USTAR_FORMAT)


def _chunks(content: Path | bytes) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
