"""The Celery application of a worker process: ``celery -A worker.app worker --pool=threads --concurrency=1``.

Loads no torch: the model lives in the child process of each job.
"""

from __future__ import annotations

import os
import socket
import uuid

from app.bootstrap import RUN_JOB, build_celery, build_stores
from app.settings import Settings
from worker.supervise import Supervisor

settings = Settings()
app = build_celery(settings)
stores = build_stores(settings)


@app.task(name=RUN_JOB)  # type: ignore[untyped-decorator]
def run_job(job_id: str) -> None:
    """Run a job unless someone else has it; repeating this is harmless."""
    owner = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
    Supervisor(stores, owner=owner).run(job_id)
