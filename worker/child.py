"""The process of one job: ``python -m worker.child JOB_ID OWNER ATTEMPT``. Its exit code is 0 if the job ended.

The worker holds the other end of its standard input. When that ends the worker is gone, nobody renews the lease, and
this process ends at once.
"""

from __future__ import annotations

import logging
import os
import sys
import threading

from app import logs
from app.bootstrap import build
from app.services.lease import Lease, LeaseLost
from app.services.run_job import JobRunner
from app.settings import Settings


def main(job_id: str, owner: str, attempt: str) -> int:
    """Run the job under the lease that the worker took."""
    settings = Settings()
    logs.configure(level=settings.log_level, style=settings.log_format)
    resources = build(settings, role="job")
    runner = JobRunner(
        Lease(job_id, owner, int(attempt)),
        database=resources.database,
        artifacts=resources.artifacts,
        engine=resources.engine,
        clock=resources.clock,
        small_corpus_passages=settings.small_corpus_passages,
    )
    try:
        runner.run()
    except LeaseLost as error:
        logging.warning("%s", error.message)
        return 3
    finally:
        resources.close()
    return 0


def end_with_worker() -> None:
    """Blocks until the worker is gone. Reads past Python's buffers: their locks would not let a thread be left here."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(4)


if __name__ == "__main__":
    threading.Thread(target=end_with_worker, daemon=True).start()
    sys.exit(main(*sys.argv[1:]))
