"""Named queries of the corpora. The passages are artifacts."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.errors import NotFound
from app.models import Corpus


class CorpusRepository:
    """Corpora of the unit of work's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find(self, corpus_id: str) -> Corpus | None:
        """One corpus, or None."""
        return self._session.get(Corpus, corpus_id)

    def get(self, corpus_id: str) -> Corpus:
        """One corpus; raises NotFound."""
        corpus = self.find(corpus_id)
        if corpus is None:
            raise NotFound(f"there is no corpus {corpus_id!r}; POST /corpora makes one", param="corpus")
        return corpus

    def list(self) -> Sequence[Corpus]:
        """All corpora, the newest first."""
        return self._session.scalars(select(Corpus).order_by(Corpus.created_at.desc(), Corpus.id)).all()

    def add(self, corpus: Corpus) -> tuple[Corpus, bool]:
        """The corpus as stored, and whether it is new: the same content is the same corpus, and keeps its first row."""
        try:
            with self._session.begin_nested():
                self._session.add(corpus)
        except IntegrityError:
            return self.get(corpus.id), False
        return corpus, True
