"""Builds the BM25 index of a large corpus in two passes over its file, written straight to disk.

The files are bm25s's own (and ``offsets.npy``: where each passage's line begins); its own ``index`` would hold all
words of all passages in memory. What is held here is the vocabulary and a few numbers a passage.
"""

from __future__ import annotations

import json
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from app.storage.disk import disk_errors

K1, B = 1.5, 0.75  # the usual ones, and the defaults of both libraries
INDEX_VERSION = "bm25-1"  # of the words and the formula; another one is built anew
_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """What is looked for and found: runs of letters and digits, in lower case."""
    return _WORD.findall(text.lower())


def read_line(path: Path, offset: int) -> dict[str, Any]:
    """The row that begins at this byte of a JSONL file."""
    with path.open("rb") as file:
        file.seek(offset)
        row: dict[str, Any] = json.loads(file.readline())
    return row


class _Statistics:
    """The first pass: the vocabulary, how many passages hold each word, and how long each passage is."""

    def __init__(self, corpus: BinaryIO) -> None:
        self.vocabulary: dict[str, int] = {}
        self.frequencies = array("q")  # by word: passages that hold it
        self.lengths = array("q")  # by passage: words
        self.offsets = array("q")  # by passage: bytes
        for offset, words in _passages(corpus):
            for word in dict.fromkeys(words):
                number = self.vocabulary.setdefault(word, len(self.vocabulary))
                if number == len(self.frequencies):
                    self.frequencies.append(0)
                self.frequencies[number] += 1
            self.lengths.append(len(words))
            self.offsets.append(offset)


def build_index(corpus: Path, folder: Path) -> None:
    """Write the index of a JSONL file of passages into ``folder``; raises SetupError on a full disk."""
    with disk_errors(folder), corpus.open("rb") as file:
        known = _Statistics(file)
        starts = np.concatenate([[0], np.cumsum(np.frombuffer(known.frequencies, dtype=np.int64))])
        file.seek(0)
        _write_scores(folder, known, _passages(file), starts=starts)
        np.save(folder / "indptr.csc.index.npy", starts)
        np.save(folder / "offsets.npy", np.frombuffer(known.offsets, dtype=np.int64))
        _write_json(folder / "vocab.index.json", known.vocabulary)
        _write_json(folder / "params.index.json", {**_params(), "num_docs": len(known.lengths)})


def _write_scores(
    folder: Path, known: _Statistics, passages: Iterator[tuple[int, list[str]]], *, starts: NDArray[np.int64]
) -> None:
    """The second pass: what each word adds to each passage's score, all of one word side by side."""
    size = (int(starts[-1]),)
    data = open_memmap(folder / "data.csc.index.npy", mode="w+", dtype=np.float64, shape=size)
    places = open_memmap(folder / "indices.csc.index.npy", mode="w+", dtype=np.int32, shape=size)
    total = len(known.lengths)
    idf = np.array([math.log(1 + (total - count + 0.5) / (count + 0.5)) for count in known.frequencies])
    mean_length = sum(known.lengths) / total
    heads = starts[:-1].copy()  # by word: where its next passage goes
    for number, (_, words) in enumerate(passages):
        counts = Counter(known.vocabulary[word] for word in words)
        columns = np.fromiter(counts.keys(), dtype=np.int64, count=len(counts))
        often = np.fromiter(counts.values(), dtype=np.float64, count=len(counts))
        rows = heads[columns]
        data[rows] = idf[columns] * (often * (K1 + 1) / (often + K1 * (1 - B + B * len(words) / mean_length)))
        places[rows] = number
        heads[columns] += 1
    data.flush()
    places.flush()


def _passages(corpus: BinaryIO) -> Iterator[tuple[int, list[str]]]:
    """Where each passage's line begins, and its words."""
    offset = 0
    for line in corpus:
        row = json.loads(line)
        yield offset, words_of(f"{row['title']} {row['text']}")
        offset += len(line)


def _params() -> dict[str, Any]:
    """What bm25s wants to know of an index: ATIRE's formula with Lucene's inverse document frequency is the above."""
    method = {"method": "atire", "idf_method": "lucene", "dtype": "float64", "int_dtype": "int32", "backend": "numpy"}
    return {"k1": K1, "b": B, "delta": 0.5, **method}


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
