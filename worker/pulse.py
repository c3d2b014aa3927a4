"""A thread that says that this worker lives, however busy its slots are."""

from __future__ import annotations

import threading

from app.services.worker_beat import WorkerBeat

_LOOK_SECONDS = 1.0


class Pulse:
    """Until it is stopped, or the process is killed."""

    def __init__(self, beat: WorkerBeat) -> None:
        self._beat, self._stopping = beat, threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="pulse", daemon=True)

    def start(self) -> None:
        """Say so now, and again and again."""
        self._thread.start()

    def stop(self) -> None:
        """Say that the worker ends; harmless if it never began."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
            self._beat.end()

    def _go_on(self) -> None:
        while not self._stopping.is_set():
            self._beat.beat()
            self._stopping.wait(_LOOK_SECONDS)
