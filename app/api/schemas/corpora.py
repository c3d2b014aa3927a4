"""Bodies about corpora."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field


class CorpusBody(BaseModel):
    """Passages that a job may retrieve from."""

    id: str = Field(description="From the passages: the same ones have the same id. For the recipe's `corpus`.")
    name: str
    num_passages: int
    num_duplicates: int = Field(description="Left out: their text, but for case and spacing, had come before.")
    num_bytes: int = Field(description="As stored.")
    created_at: datetime


class CorpusList(BaseModel):
    """All corpora, the newest first."""

    data: list[CorpusBody]


class PassageBody(BaseModel):
    """A passage that was found."""

    id: str = Field(description="As it was sent; made from title and text if none was.")
    title: str
    text: str
    score: float = Field(description="BM25, comparable within one search only.")


class PassageList(BaseModel):
    """What a search found, the best first."""

    data: list[PassageBody]
