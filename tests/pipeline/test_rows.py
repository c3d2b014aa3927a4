"""Every record that travels in a file comes back from JSON as it was."""

from __future__ import annotations

import json

import pytest

from app.core.records import Answer, Comparison, Reply
from app.pipeline.gate import Verdict
from app.pipeline.rows import from_row, to_row
from app.pipeline.training_rows import seed_example
from tests.pipeline.samples import candidate, judged, seed

RECORDS = [
    seed(1),
    Reply(3, ("a", "b"), None, "text\n\n\u2028é", "stop", 7),
    candidate(1, task=None),
    Answer("text", "length", 7, "base"),
    seed_example(seed(1)),
    judged("a", "base", 1.5),
    Comparison("a", "f1", 1, "base", 0, 0.1, 0.2, 0.1, -0.1, 0.3),
    Verdict("promote", "why"),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_there_and_back(record: object) -> None:
    row = json.loads(json.dumps(to_row(record)))
    assert from_row(type(record), {**row, "a key of a later version": 1}) == record
