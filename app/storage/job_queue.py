"""The job queue: tells a worker that a job waits. Knows nothing about jobs but their id.

A message only wakes a worker, which is done with it at once. It may be lost or doubled: the job's lease in the database
decides who works, and a sweep sends again what was lost.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, TypeAlias

from celery import Celery
from kombu.exceptions import KombuError
from kombu.transport import get_transport_cls

from app.core.errors import NotReady, SetupError
from app.storage.folder_broker import FOLDER_OPTION

CeleryApp: TypeAlias = Celery
TASK, SWEEP_TASK = "selfspec.run_job", "selfspec.sweep"
SWEEP_SECONDS = 30.0
QUEUE = "selfspec"
FOLDER_BROKER = "filesystem://"  # the URL of the embedded broker
_POLL_SECONDS = 0.25  # embedded broker: how long a message lies there at most before an idle worker looks
_CONNECT_SECONDS = 3.0  # how long the broker may take to answer
_REDIS = {"socket_connect_timeout": _CONNECT_SECONDS, "socket_timeout": _CONNECT_SECONDS}  # else it may hang for ever
PATIENCE = {"confirm_timeout": _CONNECT_SECONDS}  # of whoever sends a message
_RABBITMQ = {"confirm_publish": True}  # else what is sent may still be under way when the connection breaks
_ONE_RETRY = {"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}


def make_celery(
    broker_url: str, broker_dir: Path, *, queue: str = QUEUE, sweep_seconds: float = SWEEP_SECONDS
) -> Celery:
    """The Celery application that API and worker share; only the ``filesystem://`` broker uses ``broker_dir``.

    ``queue``: its name at the broker. ``sweep_seconds``: how often a worker's beat asks for a sweep. Raises SetupError
    if the URL is none or its driver is not installed.
    """
    app = Celery("selfspec", set_as_current=False)
    app.conf.update(
        task_default_queue=queue,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        enable_utc=True,
        timezone="UTC",
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a worker waits for its broker for as long as it takes
        result_expires=None,  # there are no results, so that beat has none to clean up
        beat_schedule={
            "sweep": {"task": SWEEP_TASK, "schedule": sweep_seconds, "options": {"expires": sweep_seconds, **PATIENCE}}
        },
        **_transport(broker_url, broker_dir),
    )
    return app


class JobQueue:
    """Sends job ids to whichever worker is free."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery

    def send(self, job_id: str) -> None:
        """Tell a worker; call it after the commit, for a worker may look at once.

        Raises NotReady if the broker is away. The job stays queued then, and the sweep sends it later.
        """
        try:
            self._celery.send_task(TASK, args=[job_id], ignore_result=True, retry_policy=_ONE_RETRY, **PATIENCE)
        except (KombuError, OSError) as error:
            raise NotReady(f"the broker does not answer: {_first_line(error)}") from error

    def check(self) -> None:
        """Raise NotReady unless the broker can be reached; may take some seconds to find that it cannot."""
        try:
            with self._celery.connection_for_write(connect_timeout=_CONNECT_SECONDS) as connection:
                connection.ensure_connection(**_ONE_RETRY)
        except (KombuError, OSError) as error:
            raise NotReady(f"the broker does not answer: {_first_line(error)}") from error

    def close(self) -> None:
        """Close the connections to the broker."""
        self._celery.close()


def _transport(broker_url: str, broker_dir: Path) -> dict[str, Any]:
    """The settings that depend on the kind of broker."""
    if broker_url.startswith(FOLDER_BROKER):
        options = {FOLDER_OPTION: str(broker_dir.absolute()), "polling_interval": _POLL_SECONDS}
        transport = {"broker_transport": "app.storage.folder_broker:Transport", "broker_transport_options": options}
        return {"broker_url": "folder://localhost//", **transport}
    _check_driver(broker_url)
    own = _REDIS if broker_url.startswith("redis") else _RABBITMQ
    return {"broker_url": broker_url, "broker_transport_options": {**_ONE_RETRY, **own}}


def _check_driver(broker_url: str) -> None:
    scheme, separator, _ = broker_url.partition("://")
    if not separator:  # not shown: it may hold a password
        raise SetupError("SELFSPEC_BROKER_URL is no URL such as redis://host:6379/0 or amqp://user:password@host//")
    if scheme.startswith("redis") and importlib.util.find_spec("redis") is None:
        raise SetupError("SELFSPEC_BROKER_URL needs redis: pip install 'selfspec[redis]'")
    try:
        get_transport_cls(scheme)
    except KeyError as error:
        raise SetupError(f"SELFSPEC_BROKER_URL: no broker is known by {scheme}://; use redis:// or amqp://") from error
    except ModuleNotFoundError as error:
        raise SetupError(f"SELFSPEC_BROKER_URL needs {error.name}: pip install {error.name}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
