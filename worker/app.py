"""The Celery application of a worker process: ``celery -A worker.app worker --pool=threads --concurrency=1``.

Loads no torch: the model lives in the child process of each job.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from typing import Any

from celery.signals import setup_logging, worker_shutting_down

from app import logs
from app.bootstrap import RUN_JOB, build_celery, build_stores
from app.settings import Settings
from worker.supervise import Supervisor

settings = Settings()
app = build_celery(settings)
stores = build_stores(settings)
stopping = threading.Event()


@app.task(name=RUN_JOB)  # type: ignore[untyped-decorator]
def run_job(job_id: str) -> None:
    """Run a job unless someone else has it; repeating this is harmless."""
    owner = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
    Supervisor(stores, owner=owner, stopping=stopping).run(job_id)


@setup_logging.connect  # type: ignore[untyped-decorator]
def set_up_logs(**_: Any) -> None:
    """Ours instead of Celery's: the format is a setting."""
    logs.configure(level=settings.log_level, style=settings.log_format)


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def stop(**_: Any) -> None:
    """Celery would wait for the job to end, for hours perhaps; the job goes back to the queue instead."""
    stopping.set()
