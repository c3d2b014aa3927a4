"""What the process of a job does, once it is there: opens what the job needs, and works on it."""

from __future__ import annotations

import logging
import os

from app import logs
from app.bootstrap import build
from app.core.states import WaitsFor
from app.services.interruptions import what_interrupts
from app.services.lease import Held, Lease, LeaseLost
from app.services.machine import process_age_seconds
from app.services.run_job import JobRunner
from app.settings import Settings
from worker.exits import Exit

log = logging.getLogger(__name__)


def work(lease: Lease, *, reasons: int) -> Exit:
    """Work on a job under its lease. ``reasons``: a file descriptor that is told what interrupted it."""
    settings = Settings()
    logs.configure(level=settings.log_level, style=settings.log_format)
    try:
        _run(settings, lease)
    except Held as held:
        log.info("%s", held)
    except LeaseLost as error:
        log.warning("%s", error.message)
        return Exit.LEASE_LOST
    except Exception as error:
        interruption = what_interrupts(error)
        if interruption is None:
            raise
        log.warning("interrupted: %s", interruption.reason)
        os.write(reasons, interruption.reason.encode())
        return Exit.NO_DISK if interruption.waits_for is WaitsFor.DISK else Exit.AWAY
    return Exit.DONE


def _run(settings: Settings, lease: Lease) -> None:
    """Raises what JobRunner does, and SetupError."""
    resources = build(settings, role="job")
    try:
        JobRunner(
            lease,
            database=resources.database,
            artifacts=resources.artifacts,
            engine=resources.engine,
            clock=resources.clock,
            small_corpus_passages=settings.small_corpus_passages,
            age_seconds=process_age_seconds,
        ).run()
    finally:
        resources.close()
