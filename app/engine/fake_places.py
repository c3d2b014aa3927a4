"""Where the fake engine keeps adapters: in host memory and, while asked for, in slots. Not safe for threads."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection
from dataclasses import replace

from app.core.errors import NotReady
from app.core.records import Attachment

ADAPTER_BYTES = 64  # what every fake adapter takes in host memory, and in a slot


class Places:
    """Adapters by id, least recently used first. ``busy`` names those that requests need: they stay where they are."""

    def __init__(self, num_slots: int, host_adapters: int, counts: Counter[str]) -> None:
        """``counts`` is told of attachments, placements and evictions."""
        self.num_slots, self.host_adapters, self._counts = num_slots, host_adapters, counts
        self._host: OrderedDict[str, Attachment] = OrderedDict()
        self._slot_of: dict[str, int] = {}
        self._pinned: set[str] = set()

    def __contains__(self, adapter: str) -> bool:
        return adapter in self._host

    def is_pinned(self, adapter: str) -> bool:
        return adapter in self._pinned

    def attachments(self) -> list[Attachment]:
        return [self._proof(adapter) for adapter in self._host]

    def load(self, adapter: str, *, rank: int, busy: Collection[str]) -> None:
        """Take an adapter into host memory, and into a slot if one is free. Raises NotReady if there is no room."""
        self._check_pins()
        if len(self._host) >= self.host_adapters:
            self._make_room(busy)
        self._host[adapter] = Attachment(
            adapter, None, num_modules=1, rank=rank, num_bytes=ADAPTER_BYTES, probe_distance=0.5
        )
        self._counts["attachments"] += 1
        if self._free_slot() is not None:
            self.place(adapter, busy=busy)

    def use(self, adapter: str, *, pin: bool, busy: Collection[str]) -> Attachment:
        """Mark it as just used. A pin also gives it a slot; raises NotReady if all of them are pinned."""
        self._host.move_to_end(adapter)
        if pin and adapter not in self._pinned:
            self._check_pins()
            self.place(adapter, busy=busy)
            self._pinned.add(adapter)
        return self._proof(adapter)

    def place(self, adapter: str, *, busy: Collection[str | None]) -> bool:
        """Whether it is in a slot now; an idle one made room for it if need be."""
        if adapter in self._host:  # one that was detached serves out its requests
            self._host.move_to_end(adapter)
        if adapter in self._slot_of:
            return True
        if (slot := self._free_slot()) is None:
            idle = [one for one in self._host if one in self._slot_of and one not in busy and one not in self._pinned]
            if not idle:
                self._counts["slot_waits"] += 1
                return False
            slot = self._slot_of.pop(idle[0])
            self._counts["evictions"] += 1
        self._slot_of[adapter] = slot
        self._counts["placements"] += 1
        return True

    def drop(self, adapter: str, *, busy: Collection[str]) -> None:
        """Forget it; its slot is freed once nobody needs it."""
        self._host.pop(adapter, None)
        self._pinned.discard(adapter)
        self.free(busy=busy)

    def free(self, *, busy: Collection[str]) -> None:
        """Free the slots of adapters that were dropped and are no longer needed."""
        for adapter in [one for one in self._slot_of if one not in self._host and one not in busy]:
            del self._slot_of[adapter]

    def _check_pins(self) -> None:
        if len(self._pinned) >= self.num_slots:
            raise NotReady("every slot is pinned")

    def _make_room(self, busy: Collection[str]) -> None:
        idle = [one for one in self._host if one not in busy and one not in self._pinned]
        if not idle:
            raise NotReady("every adapter in host memory is in use or pinned; try again")
        self._counts["host_evictions"] += 1
        self.drop(idle[0], busy=busy)

    def _free_slot(self) -> int | None:
        return min(set(range(1, self.num_slots + 1)) - set(self._slot_of.values()), default=None)

    def _proof(self, adapter: str) -> Attachment:
        return replace(self._host[adapter], slot=self._slot_of.get(adapter))
