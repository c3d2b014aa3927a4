"""The archive as tarfile reads it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from app.services.tar_stream import CHUNK_BYTES, Member, stream_tar, tar_size


@pytest.mark.parametrize("num_bytes", [0, 1, 511, 512, 513, CHUNK_BYTES + 1])
def test_archive(tmp_path: Path, num_bytes: int) -> None:
    """Of every size around a block's: the right files, the length told before, the same bytes each time."""
    content = bytes(number % 251 for number in range(num_bytes))
    (tmp_path / "weights").write_bytes(content)
    members = [Member("top/weights", tmp_path / "weights"), Member("top/note", b"text")]
    archive = b"".join(stream_tar(members, modified=1_700_000_000))
    assert len(archive) == tar_size(members)
    assert archive == b"".join(stream_tar(members, modified=1_700_000_000))
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found = {info.name: (tar.extractfile(info).read(), info.mtime) for info in tar}  # type: ignore[union-attr]
    assert found == {"top/weights": (content, 1_700_000_000), "top/note": (b"text", 1_700_000_000)}
