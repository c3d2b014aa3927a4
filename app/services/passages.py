"""Finds passages of a corpus by BM25: with rank_bm25 in memory if it is small, else with bm25s over mapped files.

Both rank alike, to the last bit: the same words, k1 and b, Lucene's inverse document frequency (never negative, so that
a word of every passage does no harm), double precision, and ties in the corpus's order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rank_bm25 import BM25Okapi

from app.core.records import Passage
from app.services.passage_index import INDEX_VERSION, K1, B, build_index, read_line, words_of
from app.storage.artifacts import ROWS, Artifact, ArtifactStore
from app.storage.database import Database

KIND = "corpus"
SMALL_CORPUS_PASSAGES = 2000

Scores = NDArray[np.float64]  # [passages], in the corpus's order


class CorpusRetriever:
    """Implements ``app.pipeline.bench.Retriever``; several threads may search at once."""

    def __init__(self, score: Callable[[list[str]], Scores], read: Callable[[int], Mapping[str, Any]]) -> None:
        """``score`` rates every passage for the words of a query; ``read`` gives one passage's row by its number."""
        self._score, self._read = score, read

    def search(self, query: str, k: int) -> list[Passage]:
        """The ``k`` best by BM25, the best first; fewer if fewer share a word with the query."""
        words = words_of(query)
        scores = self._score(words) if words else np.zeros(0)
        return [_passage(self._read(number), float(scores[number])) for number in best_of(scores, k)]


def best_of(scores: Scores, k: int) -> list[int]:
    """Positions of the ``k`` highest scores above 0, the highest first, of equals the first."""
    found = np.flatnonzero(scores)
    if len(found) > k:
        least = np.partition(scores[found], -k)[-k]
        found = found[scores[found] >= least]
    return [int(number) for number in found[np.argsort(-scores[found], kind="stable")][:k]]


class _Okapi(BM25Okapi):  # type: ignore[misc]  # a package without types
    """rank_bm25 with Lucene's inverse document frequency; Robertson's is negative for common words."""

    def _calc_idf(self, nd: Mapping[str, int]) -> None:
        for word, count in nd.items():
            self.idf[word] = math.log(1 + (self.corpus_size - count + 0.5) / (count + 0.5))


def search_in_memory(rows: Sequence[Mapping[str, Any]]) -> CorpusRetriever:
    """Over a few passages."""
    okapi = _Okapi([words_of(f"{row['title']} {row['text']}") for row in rows], k1=K1, b=B)
    return CorpusRetriever(okapi.get_scores, rows.__getitem__)


def search_mapped(corpus: Path, index: Path) -> CorpusRetriever:
    """Over the JSONL file of a corpus and the folder that ``build_index`` made of it; neither is read whole."""
    import bm25s  # only where a corpus is large: it looks for many libraries when it is imported

    bm25 = bm25s.BM25.load(index, mmap=True, show_progress=False)
    offsets = np.load(index / "offsets.npy", mmap_mode="r")
    return CorpusRetriever(
        lambda words: bm25.get_scores_from_ids(bm25.get_tokens_ids(words)),
        lambda number: read_line(corpus, int(offsets[number])),
    )


def open_retriever(artifacts: ArtifactStore, corpus: Artifact, *, num_passages: int, small: int) -> CorpusRetriever:
    """A retriever over a stored corpus; up to ``small`` passages are kept in memory. The first may build an index."""
    if num_passages <= small:
        return search_in_memory(list(corpus.rows()))
    index = artifacts.root / "indexes" / INDEX_VERSION / corpus.digest
    if not index.is_dir():
        with artifacts.brief_draft("index") as draft:
            build_index(corpus.folder / ROWS, draft)
            _publish(draft, index)
    return search_mapped(corpus.folder / ROWS, index)


def retriever_of(
    database: Database, artifacts: ArtifactStore, corpus_id: str | None, *, small: int = SMALL_CORPUS_PASSAGES
) -> Callable[[], CorpusRetriever | None]:
    """Opens a job's corpus when it is first asked for; None: the job has none. Raises NotFound if it is gone."""

    @cache
    def find() -> CorpusRetriever | None:
        if corpus_id is None:
            return None
        with database.session(read_only=True) as uow:
            corpus = uow.corpora.get(corpus_id)
        artifact = artifacts.open(corpus.artifact_digest, kind=KIND)
        return open_retriever(artifacts, artifact, num_passages=corpus.num_passages, small=small)

    return find


def _publish(draft: Path, index: Path) -> None:
    """In one step; another process may have been quicker with the same."""
    index.parent.mkdir(parents=True, exist_ok=True)
    try:
        draft.rename(index)
    except OSError:
        if not index.is_dir():
            raise


def _passage(row: Mapping[str, Any], score: float) -> Passage:
    return Passage(id=row["id"], title=row["title"], text=row["text"], score=score)
