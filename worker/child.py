"""The process of one job: ``python -m worker.child JOB_ID OWNER ATTEMPT``. Its exit code is 0 if the job ended."""

from __future__ import annotations

import logging
import sys

from app.bootstrap import build
from app.services.lease import Lease, LeaseLost
from app.services.run_job import JobRunner
from app.settings import Settings


def main(job_id: str, owner: str, attempt: str) -> int:
    """Run the job under the lease that the worker took."""
    settings = Settings()
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    resources = build(settings, role="job")
    runner = JobRunner(
        Lease(job_id, owner, int(attempt)),
        database=resources.database,
        artifacts=resources.artifacts,
        engine=resources.engine,
        clock=resources.clock,
    )
    try:
        runner.run()
    except LeaseLost as error:
        logging.warning("%s", error.message)
        return 3
    finally:
        resources.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
