"""Whose weights are in which slot: writes them, proves that they act, lets them go when nobody asks for them any more.

Who gets a slot is the scheduler's decision. Every method belongs to the engine's thread.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable

from app.core.errors import AdapterRefused
from app.core.records import Attachment
from app.engine.forward import Forward
from app.engine.host_tier import HostTier
from app.engine.scheduler import Errand, Scheduler, Turn
from app.engine.sequences import Sequence
from app.engine.slots import SlotBank

log = logging.getLogger(__name__)

_LEAST_DISTANCE = 1e-6  # nats; below this an adapter acts like no adapter


class Residents:
    """Adapters in slots. What it says of a slot is read back from what was written there."""

    def __init__(
        self,
        bank: SlotBank,
        scheduler: Scheduler,
        host: HostTier,
        forward: Forward,
        *,
        probe_ids: list[int],
        counts: Counter[str],
    ) -> None:
        self._bank, self._scheduler, self._host, self._forward = bank, scheduler, host, forward
        self._probe_ids, self._bare_probe = probe_ids, forward.log_probabilities(probe_ids, 0)
        self._counts = counts
        self._adapter_in: dict[int, str] = {}
        self._leaving: set[str] = set()

    @property
    def is_anyone_leaving(self) -> bool:
        return bool(self._leaving)

    def adapter_in(self, slot: int) -> str | None:
        """Whose weights a slot holds; None: the bare base's, or nobody's."""
        return self._adapter_in.get(slot)

    def slots(self) -> dict[str, int]:
        """The slot of each adapter that has one."""
        return {adapter: slot for slot, adapter in self._adapter_in.items()}

    def place(self, item: Sequence | Errand, turn: Turn) -> bool:
        """Write an adapter into the slot it was given, if it is not there yet; False, and told, if it could not be."""
        slot, evicted, is_new = turn
        if not is_new:
            return True
        assert item.adapter is not None
        self._adapter_in.pop(slot, None)
        self._counts["evictions"] += evicted is not None
        try:
            file = self._host.get(item.adapter)
            assert file is not None, "requests hold what they wait for"
            self._bank.write(slot, file.pairs)
        except Exception as error:
            log.exception("adapter %s could not be put into slot %d", item.adapter, slot)
            self._bank.clear(slot)
            if isinstance(item, Sequence):
                self._scheduler.ended(item)
            self._scheduler.release(item.adapter)
            item.fail(error)
            return False
        self._adapter_in[slot] = item.adapter
        self._counts["placements"] += 1
        return True

    def prove(self, adapter: str, slot: int) -> Attachment:
        """How far the adapter's log-probabilities are from the base's; one that does not act loses its slot.

        Raises AdapterRefused for that one.
        """
        try:
            distance = self._distance(adapter, slot)
        except Exception:
            if not self._scheduler.is_running(adapter):
                self._vacate(adapter)
            raise
        file = self._host.get(adapter)
        assert file is not None, "who proves an adapter holds it"
        return Attachment(adapter, slot, len(file.pairs), file.rank, file.num_bytes, distance)

    def detach(self, adapter: str) -> None:
        """Free the slot and the memory of an adapter as soon as nobody uses it."""
        self._leaving.add(adapter)

    def keep(self, adapter: str) -> None:
        """An adapter that was to be let go is wanted again."""
        self._leaving.discard(adapter)

    def let_go(self, forget: Callable[[str], None]) -> bool:
        """Free what those hold who leave and are not asked for; ``forget`` is told of each. Whether there was one."""
        gone = [adapter for adapter in self._leaving if not self._is_asked(adapter)]
        for adapter in gone:
            self._leaving.discard(adapter)
            self._vacate(adapter)
            self._host.drop(adapter)
            forget(adapter)
        return bool(gone)

    def _distance(self, adapter: str, slot: int) -> float:
        """Mean absolute difference to the base, nats. Raises AdapterRefused for one that is none or no number."""
        ours = self._forward.log_probabilities(self._probe_ids, slot)
        distance = float((ours - self._bare_probe).abs().mean())
        if not math.isfinite(distance):
            raise AdapterRefused(f"adapter {adapter} makes the base compute no numbers", param="adapter")
        if distance < _LEAST_DISTANCE:
            raise AdapterRefused(f"adapter {adapter} changes nothing: probe distance {distance}", param="adapter")
        return distance

    def _is_asked(self, adapter: str) -> bool:
        """Whether a request for it runs, waits, or was accepted and is about to wait."""
        scheduler = self._scheduler
        return scheduler.is_running(adapter) or adapter in scheduler.waiting or self._host.is_held(adapter)

    def _vacate(self, adapter: str) -> None:
        if (slot := self._scheduler.release(adapter)) is not None:
            self._bank.clear(slot)
            self._adapter_in.pop(slot, None)
