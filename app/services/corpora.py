"""Corpora: passages that a job may retrieve from, stored once for each content. Knows nothing of HTTP."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from threading import Lock
from typing import BinaryIO

from app.core.errors import InvalidInput, NotFound, Problem
from app.core.recipe import Recipe
from app.core.records import Passage
from app.models import Corpus
from app.pipeline.rows import from_row
from app.services.corpus_files import MAX_NAME_CHARS, SOURCE, CorpusReader
from app.services.passages import KIND, SMALL_CORPUS_PASSAGES, CorpusRetriever, open_retriever
from app.services.seed_checks import refuse
from app.services.seeds import unusable_text
from app.storage.artifacts import ROWS, ArtifactStore, append_rows
from app.storage.database import Database, UnitOfWork

_NUM_OPEN = 4  # corpora ready to be searched


@dataclass(frozen=True, slots=True)
class CorpusView:
    """A corpus as callers see it."""

    id: str
    name: str
    num_passages: int
    num_duplicates: int
    num_bytes: int
    created_at: datetime


class CorpusService:
    """Takes in corpora and searches them; every method may block on disk and database."""

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactStore,
        *,
        clock: Callable[[], datetime],
        max_chars: int,
        small: int = SMALL_CORPUS_PASSAGES,
    ) -> None:
        """``max_chars``: of one passage; ``small``: see ``open_retriever``."""
        self._database, self._artifacts, self._clock = database, artifacts, clock
        self._max_chars, self._small = max_chars, small
        self._open: OrderedDict[str, CorpusRetriever] = OrderedDict()
        self._lock = Lock()  # held for looking at what is open and for opening

    def add(self, file: BinaryIO, *, filename: str = "", name: str = "") -> tuple[CorpusView, bool]:
        """Store a file's passages; also whether the corpus is new. Raises InvalidInput with the lines at fault."""
        refuse(_name_problems(name))
        reader = CorpusReader(file, filename=filename, max_chars=self._max_chars)
        with self._artifacts.brief_draft(KIND) as draft:
            append_rows(draft / ROWS, reader.rows())
            refuse(reader.problems)
            if not reader.num_passages:
                raise InvalidInput([Problem(SOURCE, "there is not one passage in it", source=SOURCE)])
            artifact = self._artifacts.commit(draft, kind=KIND, recipe={}, parents=[])
        corpus = Corpus(
            id=artifact.digest[:16],
            name=name.strip() or PurePath(filename).stem or "corpus",
            created_at=self._clock(),
            artifact_digest=artifact.digest,
            num_passages=reader.num_passages,
            num_duplicates=reader.num_duplicates,
            num_bytes=artifact.num_bytes,
        )
        with self._database.session() as uow:
            uow.artifacts.record(artifact, now=self._clock())
            stored, is_new = uow.corpora.add(corpus)
            uow.commit()
        return _view(stored), is_new

    def list(self) -> tuple[CorpusView, ...]:
        """All, the newest first."""
        with self._database.session(read_only=True) as uow:
            return tuple(_view(corpus) for corpus in uow.corpora.list())

    def get(self, corpus_id: str) -> CorpusView:
        """One corpus; raises NotFound."""
        with self._database.session(read_only=True) as uow:
            return _view(uow.corpora.get(corpus_id))

    def search(self, corpus_id: str, query: str, *, k: int) -> Sequence[Passage]:
        """The best passages, as a job would find them; raises NotFound. The first search of a large corpus is slow."""
        return self._retriever(corpus_id).search(query, k)

    def _retriever(self, corpus_id: str) -> CorpusRetriever:
        with self._database.session(read_only=True) as uow:
            corpus = uow.corpora.get(corpus_id)
        with self._lock:
            if corpus_id not in self._open:
                artifact = self._artifacts.open(corpus.artifact_digest, kind=KIND)
                self._open[corpus_id] = open_retriever(
                    self._artifacts, artifact, num_passages=corpus.num_passages, small=self._small
                )
            self._open.move_to_end(corpus_id)
            while len(self._open) > _NUM_OPEN:
                self._open.popitem(last=False)
            return self._open[corpus_id]


def corpus_problems(uow: UnitOfWork, recipe: Recipe) -> list[Problem]:
    """A recipe's corpus that is not here."""
    if recipe.corpus is None or uow.corpora.find(recipe.corpus) is not None:
        return []
    known = ", ".join(corpus.id for corpus in uow.corpora.list()[:10]) or "none yet (POST /corpora makes one)"
    return [Problem("recipe.corpus", f"there is no corpus {recipe.corpus!r}; there are: {known}")]


def read_passages(
    uow: UnitOfWork, artifacts: ArtifactStore, corpus_id: str, ids: Collection[str]
) -> dict[str, Passage]:
    """Whole passages of a corpus by their ids; those that are gone, or whose corpus is, are left out.

    Reads the file until all are found, and only the lines that may be one of them.
    """
    corpus = uow.corpora.find(corpus_id)
    try:
        folder = artifacts.open(corpus.artifact_digest, kind=KIND).folder if corpus else None
    except NotFound:
        folder = None
    if folder is None:
        return {}
    marks = {json.dumps(id, ensure_ascii=False).encode(errors="replace"): id for id in ids}
    found: dict[str, Passage] = {}
    with (folder / ROWS).open("rb") as file:
        for line in file:
            if len(found) == len(marks):
                break
            if any(line.startswith(b'{"id": ' + mark) for mark in marks):
                passage = from_row(Passage, json.loads(line))
                found[passage.id] = passage
    return found


def _name_problems(name: str) -> Sequence[Problem]:
    if len(name) > MAX_NAME_CHARS:
        return [Problem("name", f"is {len(name):,} characters long; at most {MAX_NAME_CHARS} can be used")]
    fault = unusable_text(name)
    return [Problem("name", fault)] if fault else []


def _view(corpus: Corpus) -> CorpusView:
    return CorpusView(
        corpus.id, corpus.name, corpus.num_passages, corpus.num_duplicates, corpus.num_bytes, corpus.created_at
    )
