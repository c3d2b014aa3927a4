"""The Celery application of a worker process: ``celery -A worker.app worker --pool=threads --concurrency=1``.

Its tasks wake the crew or sweep, and are done in milliseconds. Loads no torch: the model lives in the child process of
each job.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.beat import EmbeddedService
from celery.signals import celeryd_after_setup, setup_logging, worker_ready, worker_shutdown, worker_shutting_down

from app import logs
from app.bootstrap import RUN_JOB, SEND, SWEEP, build_celery, build_stores
from app.settings import Settings
from worker.parts import make_crew, make_dispatcher, make_pulse

_BEAT = "celery.beat:Scheduler"  # remembers in memory: nothing is lost by sweeping too often
_CHATTY = ("celery.beat", "celery.worker.strategy", "celery.app.trace")

settings = Settings()
app = build_celery(settings)
stores = build_stores(settings)
crew, pulse, dispatcher = make_crew(stores), make_pulse(stores), make_dispatcher(stores)


@app.task(name=RUN_JOB)  # type: ignore[untyped-decorator]
def run_job(job_id: str) -> None:
    """A job waits; which one is taken is seen in the database."""
    crew.wake()


@app.task(name=SWEEP)  # type: ignore[untyped-decorator]
def sweep() -> None:
    """Send again what waits too long; repeating this is harmless."""
    dispatcher.sweep()


@setup_logging.connect  # type: ignore[untyped-decorator]
def set_up_logs(**_: Any) -> None:
    """Ours instead of Celery's: the format is a setting. Of each wake and sweep it only tells who debugs."""
    logs.configure(level=settings.log_level, style=settings.log_format)
    if settings.log_level != "debug":
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)


@celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def start(**_: Any) -> None:
    """Before the broker answers: jobs are found without it."""
    crew.start()
    pulse.start()


@worker_ready.connect  # type: ignore[untyped-decorator]
def beat(**_: Any) -> None:
    """In a thread of this process, so that no beat outlives a worker that is killed."""
    EmbeddedService(app, thread=True, scheduler_cls=_BEAT).start()
    sweep.apply_async(**SEND)


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def stop(**_: Any) -> None:
    """Jobs go back to the queue at once; they could take hours."""
    crew.stop()


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def end(**_: Any) -> None:
    """However Celery came to its end."""
    crew.stop()
    crew.join()
    pulse.stop()
    stores.close()
