"""``selfspec clean`` and ``selfspec doctor`` as a person runs them, and the API's own cleaning."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.storage.artifacts import MANIFEST, ArtifactStore
from tests.api.live import serve
from tests.housekeeping.versions import failed
from tests.services.house import BASE, House


@pytest.fixture
def here(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """A house that the environment leads to."""
    environment = {"DATA_DIR": tmp_path, "ENGINE": "fake", "BASE": BASE, "RETENTION_DAYS": 30}
    for name, value in environment.items():
        monkeypatch.setenv(f"SELFSPEC_{name}", str(value))
    return house


def selfspec(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_clean_says_what_it_does_and_ends_with_json(here: House) -> None:
    job_id = failed(here)
    for manifest in here.artifacts.root.rglob(MANIFEST):
        os.utime(manifest, (0, 0))
    dry = selfspec("clean", "--dry-run")
    *lines, last = dry.stdout.splitlines()
    assert (dry.exit_code, dry.stderr) == (0, "")
    assert "would remove 1 dataset, 0.0 MB: of failed or cancelled jobs" in lines
    assert json.loads(last)["clean"]["count"] == 3
    assert here.artifact(job_id, "dataset")
    done = selfspec("clean").stdout.splitlines()
    assert done[-2].startswith("removed 3 in all, ")
    assert json.loads(done[-1])["clean"]["is_dry_run"] is False
    assert not (here.artifacts.root / "dataset" / str(here.digests(job_id)["dataset"])).exists()


def test_doctor_fails_where_something_does(here: House) -> None:
    ended = selfspec("doctor")
    lines = ended.stdout.splitlines()
    assert (ended.exit_code, ended.stderr) == (1, "")
    assert [line.split()[:2] for line in lines if not line.startswith("ok")] == [["fail", "workers"]]
    assert "fail  workers     none lives → start one: selfspec serve, or selfspec worker" in lines
    shutil.rmtree(here.artifacts.root, ignore_errors=True)
    findings = json.loads(selfspec("doctor", "--json", "--all").stdout)["doctor"]
    assert [finding["part"] for finding in findings if finding["grade"] == "fail"] == ["workers"]
    assert set(findings[0]) == {"part", "grade", "detail", "mend"}


class Told(logging.Handler):
    """Notes that the API told of a cleaning."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.has_come = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("retention: removed 1 drafts"):
            self.has_come.set()


def test_the_api_cleans_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.main.FIRST_CLEAN_SECONDS", 0)
    trash = ArtifactStore(tmp_path / "artifacts").draft("trash", "left")
    told, logger = Told(), logging.getLogger("app.main")
    logger.addHandler(told)
    before = logger.level
    logger.setLevel(logging.INFO)  # not by monkeypatch: loggers remember what is enabled until this is called
    try:
        with serve(tmp_path):
            assert told.has_come.wait(30)
    finally:
        logger.setLevel(before)
        logger.removeHandler(told)
    assert not trash.exists()
