"""A process that starts while the database is away gets warm when it is there, without being started again."""

from __future__ import annotations

import logging
from pathlib import Path

from app.engine.fake import FakeEngine
from app.services.warmup import WarmUp
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database


class Mender(logging.Handler):
    """Brings the tables as soon as the process has found none."""

    def __init__(self, database: Database) -> None:
        super().__init__(logging.WARNING)
        self._database, self.has_acted = database, False

    def emit(self, record: logging.LogRecord) -> None:
        if "cannot be attached yet" in record.getMessage():
            self._database.upgrade()
            self.has_acted = True


def test_a_start_waits_for_its_database(tmp_path: Path) -> None:
    """It gave up at once, and /ready said "the warm-up failed" until somebody started the process again."""
    with Database(f"sqlite:///{tmp_path}/selfspec.db") as database:
        mender = Mender(database)
        logging.getLogger("app.services.warmup").addHandler(mender)
        try:
            warm_up = WarmUp(FakeEngine(), database, ArtifactStore(tmp_path / "artifacts"))
            warm_up.start()
            report = warm_up.wait()
        finally:
            logging.getLogger("app.services.warmup").removeHandler(mender)
    assert mender.has_acted
    assert report.failure is None
    assert warm_up.check().ok
