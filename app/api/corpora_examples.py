"""The worked examples of /corpora. A test sends them and holds them against the answers."""

from __future__ import annotations

from typing import Any

CORPUS_ID = "00631a6b430c525c"
CORPUS: dict[str, Any] = {
    "id": CORPUS_ID,
    "name": "filings",
    "num_passages": 2,
    "num_duplicates": 0,
    "num_bytes": 207,
    "created_at": "2026-01-05T08:55:00Z",
}
LINES = (
    '{"id": "div-1", "title": "Dividend", "text": "A dividend is the part of its profit that a company pays out."}\n'
    '{"id": "fur-1", "text": "A steel maker that idles a furnace expects fewer orders."}\n'
)
PASSAGE = {
    "id": "div-1",
    "title": "Dividend",
    "text": "A dividend is the part of its profit that a company pays out.",
    "score": 0.94,
}
TEXT = "One passage.\nAnother passage.\n"
