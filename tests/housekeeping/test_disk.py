"""A full and a read-only disk under the API: clear refusals, nothing half, the rest goes on, and it all recovers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.bootstrap import build_retention
from app.storage.artifacts import MANIFEST
from tests.api.live import SEEDS, Service, serve
from tests.housekeeping.disks import SmallDisk, small_disk

CORPUS = "".join(f"Passage {number} of a corpus that fits no full disk.\n" for number in range(5000))
LINES = "".join(f'{{"task": "t", "instruction": "Good {n}?", "input": "", "output": "yes"}}\n' for n in range(2000))


@contextmanager
def full(disk: SmallDisk) -> Iterator[None]:
    disk.fill()
    yield
    disk.empty()


@contextmanager
def read_only(disk: SmallDisk) -> Iterator[None]:
    disk.forbid()
    yield
    disk.allow()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """The artifacts lie on it; the database on another."""
    with small_disk(tmp_path / "var" / "artifacts") as mounted:
        yield mounted


@pytest.fixture
def service(tmp_path: Path, disk: SmallDisk) -> Iterator[Service]:
    with serve(tmp_path / "var", min_free_bytes=1_000_000) as running:
        yield running


def uploads(service: Service) -> dict[str, Callable[[], httpx.Response]]:
    """Everything a caller can send that is stored."""
    http = service.http
    text = {"content-type": "text/plain"}
    file = {"file": ("seeds.jsonl", LINES.encode())}
    return {
        "specialize": lambda: service.specialize(seeds=[{**SEEDS[0], "input": "x" * n} for n in range(1000)]),
        "corpora": lambda: http.post("/corpora", content=CORPUS.encode(), headers=text),
        "files": lambda: http.post("/v1/files", data={"purpose": "fine-tune"}, files=file),
    }


@pytest.mark.parametrize(
    ("state", "reason"),
    [(full, "the disk is full"), (read_only, "the file system is read-only")],
    ids=["full", "read-only"],
)
@pytest.mark.parametrize("what", ["specialize", "corpora", "files"])
def test_what_cannot_be_stored_is_refused_and_leaves_nothing(
    service: Service, disk: SmallDisk, what: str, state: Callable[[SmallDisk], object], reason: str
) -> None:
    adapter = service.add_expert()
    files, jobs = disk.files(), service.num_jobs()
    send = uploads(service)[what]
    with state(disk):  # type: ignore[attr-defined]
        refused = send()
        assert refused.status_code == 507, refused.text
        assert "Retry-After" in refused.headers
        error = refused.json()["error"]
        assert (error["code"], error["message"].partition(":")[0]) == ("disk_full", reason)
        assert disk.files() == files
        assert service.num_jobs() == jobs
        ready = service.http.get("/ready")
        assert (ready.status_code, ready.json()["checks"]["disk"]["ok"]) == (503, False)
        answer = service.http.post("/generate?domain=finance", json={"instruction": "Good?"})
        assert answer.json()["adapter"] == adapter.id
        assert service.http.get(f"/adapters/{adapter.id}/download").status_code == 200
        assert service.http.get("/jobs").status_code == 200
    assert send().is_success
    assert service.http.get("/ready").json()["checks"]["disk"]["ok"]


def large_upload(http: httpx.Client, what: str) -> Callable[[], httpx.Response]:
    """A body of more than a megabyte."""
    lines = (b"words " * 200 + b"\n") * 1500
    if what == "corpora":
        return lambda: http.post("/corpora", content=lines)
    if what == "files":
        return lambda: http.post("/v1/files", files={"file": ("a.jsonl", lines)})
    return lambda: http.post("/specialize", files={"seeds": ("seeds.jsonl", lines)}, data={"domain": "finance"})


@pytest.mark.parametrize("what", ["specialize", "corpora", "files"])
def test_an_upload_that_finds_no_room_for_a_while_is_told(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large bodies are kept in temporary files until they are read."""
    with small_disk(tmp_path / "tmp") as disk, serve(tmp_path / "var") as service:
        monkeypatch.setattr("tempfile.tempdir", str(disk.folder))
        disk.fill()
        send = large_upload(service.http, what)
        refused = send()
        assert (refused.status_code, refused.json()["error"]["code"]) == (507, "disk_full"), refused.text
        assert "TMPDIR" in refused.json()["error"]["message"]
        disk.empty()
        assert send().status_code < 500


def test_a_database_on_a_full_disk_recovers(tmp_path: Path) -> None:
    """SQLite in the data folder: nothing can be written, all can be read, and nothing is restarted."""
    with small_disk(tmp_path / "var") as disk, serve(tmp_path / "var", min_free_bytes=100_000) as service:
        adapter = service.add_expert()
        jobs = service.num_jobs()
        with full(disk):
            for number in range(2):  # the second finds a log of the database that the first could not extend
                refused = service.specialize(domain=f"d{number}")
                assert (refused.status_code, refused.json()["error"]["code"]) == (507, "disk_full"), refused.text
            cancelled = service.http.post(f"/jobs/{adapter.job_id}/cancel")
            assert (cancelled.status_code, cancelled.json()["error"]["code"]) == (507, "disk_full"), cancelled.text
            assert service.num_jobs() == jobs
            answer = service.http.post("/generate?domain=finance", json={"instruction": "Good?"})
            assert answer.json()["adapter"] == adapter.id
        assert service.http.get("/ready").status_code == 200
        assert service.specialize(domain="law").status_code == 202
        assert service.http.post(f"/jobs/{adapter.job_id}/cancel").json()["status"] == "cancelled"


def test_a_store_that_is_full_is_cleaned(tmp_path: Path, disk: SmallDisk) -> None:
    """Deleting needs no room."""
    with serve(tmp_path / "var") as service:
        resources = service.resources
        note = resources.artifacts.put_rows([{"n": 1}], kind="note")
        with resources.database.session() as uow:
            uow.artifacts.record(note, now=resources.clock())
            uow.commit()
        os.utime(note.folder / MANIFEST, (0, 0))
        (resources.artifacts.draft("trash", "1") / "x").write_text("x")
        disk.fill()
        assert build_retention(resources).clean().count == 2
        assert disk.files() == [".lock"]
