"""Edits of a dataset's rows in the database."""

from __future__ import annotations

from app.storage.database import Database
from tests.storage.samples import NOW, store_job


def test_a_row_has_one_edit_at_most(database: Database) -> None:
    """The newest; a row that is left out is told from one with other texts."""
    job_id, other = store_job(database), store_job(database, "job-2")
    with database.session() as uow:
        for row in ({"output": "a"}, None, {"output": "b"}, {"output": "b"}):
            uow.row_edits.put(job_id, "dataset", 7, row, now=NOW)
        for index in (3, 3, 9):
            uow.row_edits.put(job_id, "dataset", index, None, now=NOW)
        uow.row_edits.put(job_id, "dataset-2", 7, None, now=NOW)
        uow.row_edits.put(other, "dataset", 1, None, now=NOW)
        uow.commit()
    with database.session(read_only=True) as uow:
        assert uow.row_edits.list(job_id, "dataset") == {3: None, 7: {"output": "b"}, 9: None}
        assert list(uow.row_edits.list(job_id, "dataset")) == [3, 7, 9]
        assert uow.row_edits.list(job_id, "dataset", first=4, limit=5) == {7: {"output": "b"}}
        assert uow.row_edits.count(job_id, "dataset") == (1, 2)
        assert uow.row_edits.count("job-3", "dataset") == (0, 0)
    with database.session() as uow:
        uow.row_edits.remove(job_id, "dataset", 7)
        uow.row_edits.remove(job_id, "dataset", 8)
        uow.commit()
    with database.session(read_only=True) as uow:
        assert uow.row_edits.list(job_id, "dataset") == {3: None, 9: None}
