"""The running sequences, in rectangles of like length, so that one long sequence does not widen a hundred short ones.

A band is a rectangle for sequences up to some length; a step is one forward pass a band. A sequence that outgrows its
band moves to the next: what it may come to need is not reserved, for few answers get as long as they may.
Knows nothing of who waits or which adapter is where.
"""

from __future__ import annotations

from collections.abc import Iterator

from app.engine.rectangle import Layout, Rectangle
from app.engine.sequences import Sequence

_SHORTEST, _RATIO = 512, 4  # longest lengths of the bands, tokens: 512, 2048, 8192 …
_HEADROOM = 64  # tokens a sequence can be expected to write before it should have to move
_SPARE = 1.25  # columns of a full-grown band over its longest sequence, so that it seldom has to be moved


def columns_per_row(longest: int) -> int:
    """Columns that a row of a band may come to take."""
    return int((longest + 1) * _SPARE)


class Band:
    """One rectangle and its sequences: row i is ``sequences[i]`` and holds ``lengths[i]`` tokens."""

    def __init__(self, layout: Layout, longest: int) -> None:
        self.longest = longest
        self.sequences: list[Sequence] = []
        self.lengths: list[int] = []
        self.rectangle = Rectangle(layout, 4, min(_SHORTEST, longest) // 2)

    def join(self, sequence: Sequence, source: Rectangle, row: int, length: int) -> None:
        """Add a sequence whose ``length`` tokens are at the end of ``row`` in ``source``."""
        self._make_room(len(self.sequences) + 1, length)
        self.rectangle.take(len(self.sequences), source, row, length)
        self.rectangle.first = min(self.rectangle.first, self.rectangle.last - length)
        self.sequences.append(sequence)
        self.lengths.append(length)

    def prepare_step(self, num_rows: int) -> None:
        """Make sure of one free column, and of storage for ``num_rows`` rows, which may be more than there are."""
        self._make_room(num_rows, 0)

    def stepped(self) -> None:
        """Every row has one token more."""
        self.rectangle.last += 1
        self.lengths = [length + 1 for length in self.lengths]

    def leave(self, sequence: Sequence) -> None:
        """Its row is free at once: the last row takes its place."""
        row, last = self.sequences.index(sequence), len(self.sequences) - 1
        if sequence.finish_reason == "error":
            self.rectangle.blank_row(row)
        if row != last:
            self.rectangle.move_row(last, row)
        self.sequences[row], self.lengths[row] = self.sequences[last], self.lengths[last]
        del self.sequences[last], self.lengths[last]
        width = max(self.lengths, default=0)
        self.rectangle.first = self.rectangle.last - width
        if not width:
            self.rectangle.first = self.rectangle.last = 0

    def _make_room(self, num_rows: int, length: int) -> None:
        width = max(length, self.rectangle.last - self.rectangle.first)
        most = columns_per_row(self.longest)
        self.rectangle.make_room(num_rows, width, live_rows=len(self.sequences), most_columns=most)


class Bands:
    """All running sequences of one engine, within a budget of bytes."""

    def __init__(self, layout: Layout, *, context_tokens: int, budget: int) -> None:
        self.budget, self._layout, self._context_tokens = budget, layout, context_tokens
        self._bands: dict[int, Band] = {}

    def __iter__(self) -> Iterator[Band]:
        """Those in which something runs."""
        return iter([band for band in self._bands.values() if band.sequences])

    def __len__(self) -> int:
        """Running sequences."""
        return sum(len(band.sequences) for band in self._bands.values())

    @property
    def num_bytes(self) -> int:
        """What the running sequences may come to take in their bands."""
        return sum(len(band.sequences) * self._bytes(band.longest) for band in self._bands.values())

    def cost(self, sequence: Sequence) -> int:
        """Bytes a sequence takes where it would run now."""
        return self._bytes(self._class(sequence.num_tokens, sequence.most_tokens))

    def most(self, sequence: Sequence) -> int:
        """Bytes it takes if it gets as long as it may."""
        return self._bytes(self._class(sequence.most_tokens, sequence.most_tokens))

    def join(self, sequence: Sequence, source: Rectangle, row: int, length: int) -> None:
        """Take over a sequence whose ``length`` tokens were computed in ``source``."""
        self._of(sequence).join(sequence, source, row, length)

    def outgrown(self) -> list[Sequence]:
        """Sequences for whose next token their band has no room."""
        return [
            sequence
            for band in self
            for sequence, length in zip(band.sequences, band.lengths, strict=True)
            if length >= band.longest
        ]

    def grow(self, sequence: Sequence) -> bool:
        """Move a sequence to the next band; False if there is no room in the budget."""
        if self.num_bytes - self._bytes(self._where(sequence).longest) + self.cost(sequence) > self.budget:
            return False
        band = self._where(sequence)
        row = band.sequences.index(sequence)
        self._of(sequence).join(sequence, band.rectangle, row, band.lengths[row])
        self._leave(band, sequence)
        return True

    def leave(self, sequence: Sequence) -> None:
        """Free what a sequence holds; nothing if it does not run."""
        for band in self:
            if sequence in band.sequences:
                self._leave(band, sequence)

    def clear(self, band: Band) -> None:
        """Forget a band whose computation failed halfway."""
        del self._bands[band.longest]

    def _leave(self, band: Band, sequence: Sequence) -> None:
        band.leave(sequence)
        if not band.sequences and band.longest > _SHORTEST:
            del self._bands[band.longest]

    def _where(self, sequence: Sequence) -> Band:
        return next(band for band in self if sequence in band.sequences)

    def _of(self, sequence: Sequence) -> Band:
        longest = self._class(sequence.num_tokens, sequence.most_tokens)
        if longest not in self._bands:
            self._bands[longest] = Band(self._layout, longest)
        return self._bands[longest]

    def _class(self, num_tokens: int, most_tokens: int) -> int:
        """The longest length of the band for a sequence of so many tokens that may get ``most_tokens`` long."""
        longest = _SHORTEST
        while longest < min(num_tokens + _HEADROOM, most_tokens, self._context_tokens):
            longest *= _RATIO
        return min(longest, self._context_tokens)

    def _bytes(self, longest: int) -> int:
        return columns_per_row(longest) * self._layout.bytes_per_token
