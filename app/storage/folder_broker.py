"""The embedded broker: a kombu transport that keeps each message as a file in one folder. No server.

A message appears by rename, so a reader never sees half of one, and belongs to whoever deletes it. (kombu's own
filesystem transport writes in place: a worker that looks at that moment reads an empty message and fails.) A worker
that is killed loses the messages it holds; the sweep of queued jobs makes up for it. No broadcasts.
"""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import virtual

FOLDER_OPTION = "folder"


class Channel(virtual.Channel):
    """What a folder can do: put, get, count and forget messages of a queue."""

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        name = uuid.uuid4().hex
        draft = self._folder / f"{name}.tmp"
        draft.write_text(json.dumps(message), encoding="utf-8")
        draft.rename(self._folder / f"{time.time_ns():020d}-{name}.{queue}.msg")

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        for path in self._waiting(queue):
            try:
                content = path.read_text(encoding="utf-8")
                path.unlink()
                return json.loads(content)
            except (FileNotFoundError, ValueError):  # another worker was quicker, or this is no message
                continue
        raise Empty

    def _size(self, queue: str) -> int:
        return len(self._waiting(queue))

    def _purge(self, queue: str) -> int:
        waiting = self._waiting(queue)
        for path in waiting:
            path.unlink(missing_ok=True)
        return len(waiting)

    def _waiting(self, queue: str) -> list[Path]:
        """Messages of a queue, oldest first."""
        return sorted(self._folder.glob(f"*.{queue}.msg"))

    @property
    def _folder(self) -> Path:
        return Path(self.connection.client.transport_options[FOLDER_OPTION])


class Transport(virtual.Transport):
    """Named to Celery as ``app.storage.folder_broker:Transport``; needs the transport option ``folder``."""

    Channel = Channel
    state = virtual.BrokerState()  # type: ignore[no-untyped-call]  # queues this process declared
    driver_type = driver_name = "folder"

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)  # type: ignore[no-untyped-call]
        Path(client.transport_options[FOLDER_OPTION]).mkdir(parents=True, exist_ok=True)

    def driver_version(self) -> str:
        """Nothing is versioned here."""
        return "-"
