"""Which adapter sits in which slot: policy only, no tensors.

Slot 0 is the bare base and never taken. The least recently used adapter that is not in use makes room for a new one.
Safe to call from any thread: requests mark adapters as used while another thread attaches one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection

from app.core.errors import NotReady


class SlotTable:
    """Adapter ids and their slots, least recently used first."""

    def __init__(self, num_slots: int) -> None:
        """``num_slots`` adapters at a time, the base's slot 0 not counted."""
        self._slot_of: OrderedDict[str, int] = OrderedDict()
        self._free = list(range(num_slots, 0, -1))
        self._lock = threading.Lock()

    def take(self, adapter: str, *, in_use: Collection[str] = ()) -> tuple[int, str | None]:
        """The slot of ``adapter`` and the adapter evicted for it, if any; marks it as just used.

        Raises NotReady if every slot is in use.
        """
        with self._lock:
            if adapter in self._slot_of:
                self._slot_of.move_to_end(adapter)
                return self._slot_of[adapter], None
            evicted = None if self._free else self._evict(in_use)
            self._slot_of[adapter] = self._free.pop()
            return self._slot_of[adapter], evicted

    def use(self, adapter: str) -> int | None:
        """Its slot, marked as just used, or None if it is not attached."""
        with self._lock:
            if adapter in self._slot_of:
                self._slot_of.move_to_end(adapter)
            return self._slot_of.get(adapter)

    def slot_of(self, adapter: str) -> int | None:
        """Its slot, or None; looking is not using."""
        with self._lock:
            return self._slot_of.get(adapter)

    def can_take(self, in_use: Collection[str]) -> bool:
        """Whether there is a slot that is free or whose adapter is not in use."""
        with self._lock:
            return bool(self._free) or any(adapter not in in_use for adapter in self._slot_of)

    def release(self, adapter: str) -> int:
        """Free its slot, and say which it was."""
        with self._lock:
            self._free.append(self._slot_of.pop(adapter))
            return self._free[-1]

    def _evict(self, in_use: Collection[str]) -> str:
        for adapter in self._slot_of:
            if adapter not in in_use:
                self._free.append(self._slot_of.pop(adapter))
                return adapter
        raise NotReady("every adapter slot is in use; raise SELFSPEC_ADAPTER_SLOTS or try again")
