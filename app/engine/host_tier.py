"""Adapters kept in host memory, within a budget of bytes: who stays, who leaves for whom.

Knows what an adapter weighs and how to have it read, nothing of slots or of what the matrices mean. Safe to call from
any thread. Reading happens outside the lock: callers of one adapter wait for its one reading, callers of others do not.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from app.core.errors import AdapterRefused, NotReady
from app.engine.adapter_files import AdapterFile


class HostTier:
    """Adapters by id, least recently used first. While one is read, its bytes come on top of the budget."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget = budget_bytes
        self.num_bytes = 0
        self.evictions = 0  # adapters that left for another, since start
        self._files: OrderedDict[str, AdapterFile] = OrderedDict()
        self._reading: dict[str, Future[AdapterFile]] = {}
        self._holds: Counter[str] = Counter()
        self._pinned: set[str] = set()
        self._lock = threading.Lock()

    def load(self, adapter: str, read: Callable[[], AdapterFile]) -> AdapterFile:
        """The adapter, by ``read`` if it is not there; all who wait for one reading get its result or its error.

        Raises what ``read`` raises, AdapterRefused if it is larger than the whole budget, NotReady if what is pinned or
        held leaves no room.
        """
        with self._lock:
            if (file := self._used(adapter)) is not None:
                return file
            reading = self._reading.get(adapter)
            if is_ours := reading is None:
                reading = self._reading[adapter] = Future()
        if is_ours:
            self._read(adapter, read, reading)
        return reading.result()

    def get(self, adapter: str) -> AdapterFile | None:
        """The adapter, marked as just used, or None if it is not there."""
        with self._lock:
            return self._used(adapter)

    def __contains__(self, adapter: str) -> bool:
        """Whether it is there; looking is not using."""
        with self._lock:
            return adapter in self._files

    def sizes(self) -> dict[str, int]:
        """Bytes of each adapter."""
        with self._lock:
            return {adapter: file.num_bytes for adapter, file in self._files.items()}

    def hold(self, adapter: str) -> bool:
        """Keep it from being evicted until ``release``, which is owed once for each hold; False if it is not there."""
        with self._lock:
            if self._used(adapter) is None:
                return False
            self._holds[adapter] += 1
            return True

    def release(self, adapter: str) -> None:
        """Give back one hold."""
        with self._lock:
            self._holds[adapter] -= 1
            if self._holds[adapter] <= 0:
                del self._holds[adapter]

    def is_held(self, adapter: str) -> bool:
        """Whether somebody owes a ``release``."""
        with self._lock:
            return adapter in self._holds

    def pin(self, adapter: str) -> None:
        """Never evict it, from when it is loaded until it is dropped."""
        with self._lock:
            self._pinned.add(adapter)

    def drop(self, adapter: str) -> None:
        """Forget it and its pin; one that is being read is not kept. Who has its matrices may go on with them."""
        with self._lock:
            self._pinned.discard(adapter)
            self._reading.pop(adapter, None)
            if adapter in self._files:
                self._remove(adapter)

    def _used(self, adapter: str) -> AdapterFile | None:
        if adapter in self._files:
            self._files.move_to_end(adapter)
        return self._files.get(adapter)

    def _read(self, adapter: str, read: Callable[[], AdapterFile], reading: Future[AdapterFile]) -> None:
        try:
            file = read()
            with self._lock:
                if self._reading.get(adapter) is reading:
                    self._keep(adapter, file)
            reading.set_result(file)
        except BaseException as error:
            reading.set_exception(error)
        finally:
            with self._lock:
                if self._reading.get(adapter) is reading:
                    del self._reading[adapter]

    def _keep(self, adapter: str, file: AdapterFile) -> None:
        if file.num_bytes > self.budget:
            raise AdapterRefused(
                f"the adapter takes {file.num_bytes:,} bytes, more than all of SELFSPEC_ADAPTER_BYTES "
                f"({self.budget:,}); raise it and restart",
                param="adapter",
            )
        leaving, room = [], self.budget - self.num_bytes
        for other, kept in self._files.items():
            if room >= file.num_bytes:
                break
            if other not in self._pinned and not self._holds[other]:
                leaving.append(other)
                room += kept.num_bytes
        if room < file.num_bytes:
            raise NotReady(
                "all adapters in host memory are in use or pinned; raise SELFSPEC_ADAPTER_BYTES or try again"
            )
        for other in leaving:
            self._remove(other)
            self.evictions += 1
        self._files[adapter] = file
        self.num_bytes += file.num_bytes

    def _remove(self, adapter: str) -> None:
        self.num_bytes -= self._files.pop(adapter).num_bytes
