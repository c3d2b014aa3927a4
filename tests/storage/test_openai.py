"""Uploaded files and fine-tunings as rows, on each backend."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from app.core.errors import NotFound
from app.core.states import JobStatus
from app.models import FineTuning, UploadedFile
from app.storage.database import Database
from tests.storage.samples import NOW, new_job, store_job


def add_file(database: Database, file_id: str, *, minutes: int = 0, **values: Any) -> None:
    given = {"purpose": "fine-tune", "filename": "a.jsonl", "num_bytes": 3, "artifact_digest": "0" * 64, **values}
    with database.session() as uow:
        uow.files.add(UploadedFile(id=file_id, created_at=NOW + timedelta(minutes=minutes), **given))
        uow.commit()


def listed(database: Database, **options: Any) -> list[str]:
    with database.session(read_only=True) as uow:
        return [file.id for file in uow.files.list(**{"now": NOW, **options})]


def test_files_in_order_and_in_pages(database: Database) -> None:
    """Two of the same moment are neither lost nor met twice."""
    for file_id, minutes in (("file-a", 0), ("file-b", 1), ("file-c", 1), ("file-d", 2)):
        add_file(database, file_id, minutes=minutes, purpose="evals" if file_id == "file-a" else "fine-tune")
    assert listed(database) == ["file-d", "file-c", "file-b", "file-a"]
    assert listed(database, after="file-c", limit=1) == ["file-b"]
    assert listed(database, after="file-b", oldest_first=True) == ["file-c", "file-d"]
    assert listed(database, purpose="evals") == ["file-a"]


def test_a_file_whose_time_is_over_is_not_there(database: Database) -> None:
    add_file(database, "file-a", expires_at=NOW + timedelta(hours=1))
    assert listed(database) == ["file-a"]
    over = NOW + timedelta(hours=1)
    assert listed(database, now=over) == []
    with database.session(read_only=True) as uow, pytest.raises(NotFound):
        uow.files.get("file-a", now=over)


def order(database: Database, job_id: str, *, minutes: int = 0, labels: Mapping[str, str], **values: Any) -> None:
    with database.session() as uow:
        uow.jobs.add(new_job(job_id, created_at=NOW + timedelta(minutes=minutes)))
        given = {"training_file": "file-a", "model": "tiny", "request": {}, **values}
        uow.fine_tunings.add(FineTuning(job_id=job_id, labels=dict(labels), **given))
        uow.commit()


def test_jobs_by_their_labels(database: Database) -> None:
    store_job(database, "job-0")
    order(database, "job-1", minutes=1, labels={'a"]': "é"})
    order(database, "job-2", minutes=2, labels={'a"]': "é", "b": "2"})
    with database.session(read_only=True) as uow:
        found = [
            list(uow.fine_tunings.job_ids(is_wanted=is_wanted, **options))
            for is_wanted, options in (
                (lambda labels: True, {}),
                (lambda labels: labels.get('a"]') == "é", {"limit": 1}),
                (lambda labels: labels.get('a"]') == "é", {"after": "job-2"}),
                (lambda labels: not labels, {}),
            )
        ]
        with pytest.raises(NotFound):
            uow.fine_tunings.job_ids(after="job-9", is_wanted=bool)
    assert found == [["job-2", "job-1", "job-0"], ["job-2"], ["job-1"], ["job-0"]]


def test_jobs_that_need_a_file(database: Database) -> None:
    order(database, "job-1", labels={})
    order(database, "job-2", minutes=1, labels={}, training_file="file-b", validation_file="file-a")
    order(database, "job-3", minutes=2, labels={}, training_file="file-b")
    with database.session() as uow:
        assert list(uow.fine_tunings.waiting_for("file-a")) == ["job-1", "job-2"]
        uow.jobs.move("job-1", JobStatus.CANCELLED, now=NOW)
        assert list(uow.fine_tunings.waiting_for("file-a")) == ["job-2"]


def test_events_from_the_newest_back(database: Database) -> None:
    for job_id in ("job-1", "job-2"):
        store_job(database, job_id)
    with database.session() as uow:
        told = [uow.events.add("job-1", "training_step", str(number), now=NOW).id for number in range(3)]
        uow.events.add("job-2", "training_step", "another job's", now=NOW)
        assert [event.message for event in uow.fine_tunings.events("job-1", limit=2)] == ["2", "1"]
        assert [event.message for event in uow.fine_tunings.events("job-1", before=told[1])] == ["0"]
