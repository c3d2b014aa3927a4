"""Seed sets in the artifact store: what the user uploaded, in its order, once for each content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from app.core.records import Seed
from app.pipeline.rows import from_row, to_row
from app.storage.artifacts import Artifact, ArtifactStore

KIND = "seeds"  # evaluation sets too: a set's role is its row's, the content is the same kind of thing


def store_seeds(artifacts: ArtifactStore, seeds: Sequence[Seed]) -> Artifact:
    """Write them as one artifact; the same seeds in the same order are stored once."""
    return artifacts.put_rows((to_row(seed) for seed in seeds), kind=KIND)


def load_seeds(artifacts: ArtifactStore, digest: str) -> list[Seed]:
    """The seeds of an artifact, in order; raises NotFound."""
    return list(read_seeds(artifacts, digest))


def read_seeds(artifacts: ArtifactStore, digest: str) -> Iterator[Seed]:
    """The same, one by one."""
    return (from_row(Seed, row) for row in artifacts.open(digest, kind=KIND).rows())
