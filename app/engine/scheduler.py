"""Who runs next: lines by expert, and which expert holds which slot. Policy only: no tensors, no clock, no thread.

Among experts that can run, the one with the fewest running sequences is served first, the oldest request among equals.
An expert without a slot takes a free one, or that of an idle one, least recently used first. If none is idle, those
that have had their turn let nobody in until they are: so every expert gets on, however many there are.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from app.engine.sequences import Sequence
from app.engine.slot_table import SlotTable

TURN = 16  # sequences an expert may start while another waits for its slot


@dataclass(eq=False, slots=True)
class Errand:
    """Somebody waits for a computation that needs an adapter in a slot (None: the bare base's), but no place in the
    batch: the proof that an adapter acts, a part of a score."""

    adapter: str | None
    compute: Callable[[int], Any]  # given the slot
    future: Future[Any] = field(default_factory=Future)

    def run(self, slot: int) -> None:
        """Compute, and tell what came of it; nothing if nobody waits for it any more."""
        try:
            result = self.compute(slot)
        except Exception as error:
            self.fail(error)
            return
        with suppress(InvalidStateError):
            self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Tell why there is no result."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


Item = Sequence | Errand
Turn = tuple[int, str | None, bool]  # a slot, whom its taker evicted, and whether it was taken just now


class Scheduler:
    """Lines and slots. Not safe to call from several threads at once."""

    def __init__(self, table: SlotTable) -> None:
        self._table = table
        self._lines: dict[str | None, deque[Sequence]] = {}
        self._errands: list[Errand] = []
        self._active: set[Sequence] = set()
        self._running: Counter[str | None] = Counter()  # of these, by adapter
        self._turn: Counter[str] = Counter()  # sequences started since the slot was taken
        self._pinned: set[str] = set()
        self.slot_waits = 0  # requests that had to wait for a slot

    def add(self, item: Item) -> None:
        """To the end of its line."""
        if isinstance(item, Errand):
            self._errands.append(item)
        else:
            self._lines.setdefault(item.adapter, deque()).append(item)

    def next_errand(self) -> tuple[Errand, Turn] | None:
        """Take the first errand for which there is a slot."""
        can_run = self._can_run([errand.adapter for errand in self._errands])
        for errand in self._errands:
            if can_run[errand.adapter]:
                self._errands.remove(errand)
                return errand, self._slot(errand.adapter)
        return None

    def next(self, fits: Callable[[Sequence], bool]) -> tuple[Sequence, Turn] | None:
        """Take the next sequence out of its line; None if none can run now. One that does not fit is not passed by."""
        order = sorted(self._lines, key=lambda adapter: (self._running[adapter], self._lines[adapter][0].submitted_at))
        can_run = self._can_run([*order, *(errand.adapter for errand in self._errands)])
        is_contended = not all(can_run.values())
        for adapter in order:
            if not can_run[adapter]:
                self._count_wait(adapter)
                continue
            if is_contended and adapter is not None and self._turn[adapter] >= TURN:
                continue
            if not fits(self._lines[adapter][0]):
                return None
            turn = self._slot(adapter)
            sequence = self._lines[adapter].popleft()
            if not self._lines[adapter]:
                del self._lines[adapter]
            self._active.add(sequence)
            self._running[adapter] += 1
            if adapter is not None:
                self._turn[adapter] += 1
            return sequence, turn
        return None

    def ended(self, sequence: Sequence) -> bool:
        """A sequence that ``next`` gave out runs no more; False if that was known."""
        if sequence not in self._active:
            return False
        self._active.discard(sequence)
        self._running[sequence.adapter] -= 1
        if not self._running[sequence.adapter]:
            del self._running[sequence.adapter]
        return True

    def put_back(self, sequence: Sequence) -> None:
        """One that runs waits again, before all others of its expert."""
        self.ended(sequence)
        self._lines.setdefault(sequence.adapter, deque()).appendleft(sequence)

    def remove(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Take whatever is unwanted out of its line, and give it back."""
        removed: list[Item] = [errand for errand in self._errands if unwanted(errand)]
        self._errands = [errand for errand in self._errands if errand not in removed]
        for adapter, line in list(self._lines.items()):
            out = [sequence for sequence in line if unwanted(sequence)]
            if out:
                removed += out
                gone = set(out)
                self._lines[adapter] = deque(sequence for sequence in line if sequence not in gone)
                if not self._lines[adapter]:
                    del self._lines[adapter]
        return removed

    def release(self, adapter: str) -> int | None:
        """Take its slot away: which one it was, or None. It must not be running."""
        assert not self._running[adapter]
        self._turn.pop(adapter, None)
        self._pinned.discard(adapter)
        return self._table.release(adapter) if self._table.slot_of(adapter) is not None else None

    def pin(self, adapter: str) -> None:
        """Never evict it."""
        self._pinned.add(adapter)

    def is_pinned(self, adapter: str) -> bool:
        return adapter in self._pinned

    @property
    def num_pinned(self) -> int:
        return len(self._pinned)

    def is_running(self, adapter: str | None) -> bool:
        return self._running[adapter] > 0

    def __len__(self) -> int:
        """Requests and errands that wait."""
        return sum(map(len, self._lines.values())) + len(self._errands)

    @property
    def running(self) -> Mapping[str | None, int]:
        """Sequences that run, by adapter."""
        return dict(self._running)

    @property
    def waiting(self) -> Mapping[str | None, int]:
        """Requests that wait, by adapter."""
        return {adapter: len(line) for adapter, line in self._lines.items()}

    def _slot(self, adapter: str | None) -> Turn:
        if adapter is None:
            return 0, None, False
        if (slot := self._table.use(adapter)) is not None:
            return slot, None, False
        slot, evicted = self._table.take(adapter, in_use=self._busy())
        self._turn.pop(adapter, None)
        if evicted is not None:
            self._turn.pop(evicted, None)
        return slot, evicted, True

    def _can_run(self, adapters: Iterable[str | None]) -> dict[str | None, bool]:
        """Whether each has a slot or can have one."""
        is_there = {adapter: adapter is None or self._table.slot_of(adapter) is not None for adapter in adapters}
        can_take = all(is_there.values()) or self._table.can_take(self._busy())
        return {adapter: there or can_take for adapter, there in is_there.items()}

    def _busy(self) -> set[str]:
        """Adapters whose slot cannot be taken: they run, are pinned, or are asked for and still have their turn."""
        busy = {adapter for adapter in self._running if adapter is not None} | self._pinned
        return busy | {adapter for adapter in self._lines if adapter is not None and self._turn[adapter] < TURN}

    def _count_wait(self, adapter: str | None) -> None:
        for sequence in self._lines[adapter]:
            if not sequence.waited_for_slot:
                sequence.waited_for_slot = True
                self.slot_waits += 1
