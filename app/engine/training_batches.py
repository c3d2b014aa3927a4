"""Which rows an optimizer step learns from, and which of them pass through the model together.

Everything follows from the recipe's seed: a training that goes on from a checkpoint goes through the same batches.
Knows nothing of tokens but how many there are.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Iterator, Sequence

_ALMOST = 1e-9  # 0.29 × 100 is a little less than 29


class BatchOrder:
    """Endless shuffled epochs over rows, named by their positions.

    Without ``seed_share`` an epoch is every row once. With it the share of every batch is seeds (a row more or less
    where the share of a batch is no whole number): an epoch then is every generated row once, and the seeds come in
    shuffled rounds of their own as often as that needs. A share below what the seeds are of all rows is none: few
    generated rows would end an epoch before each seed was seen. Where only seeds, or only generated rows, are left to
    learn from (there are no others, or the share is 0 or 1), an epoch is each of them once.
    """

    def __init__(self, is_seed: Sequence[bool], *, batch_size: int, seed_share: float | None, seed: int) -> None:
        self._batch_size, self._seed = batch_size, seed
        seeds = [position for position, answer in enumerate(is_seed) if answer]
        generated = [position for position, answer in enumerate(is_seed) if not answer]
        self._seeds, self._once, self._share = list[int](), list(range(len(is_seed))), 0.0
        if seed_share is not None and seeds and generated:
            if seed_share in (0, 1):
                self._once = seeds if seed_share else generated
            elif seed_share > len(seeds) / len(is_seed):
                self._seeds, self._once, self._share = seeds, generated, seed_share
        self._rows_an_epoch = len(self._once)
        if self._seeds:
            most = math.ceil(len(self._once) / (1 - self._share)) + 1
            self._rows_an_epoch = bisect_left(range(most), len(self._once), key=lambda n: n - self._seeds_among(n))

    @property
    def steps_an_epoch(self) -> int:
        return math.ceil(self._rows_an_epoch / self._batch_size)

    def batches(self) -> Iterator[list[int]]:
        """The last batch of an epoch may be smaller."""
        chance = random.Random(self._seed)
        seeds = _rounds(self._seeds, chance)
        while True:
            once = list(self._once)
            chance.shuffle(once)
            epoch = self._mix(iter(once), seeds)
            for begin in range(0, self._rows_an_epoch, self._batch_size):
                num_rows = min(self._batch_size, self._rows_an_epoch - begin)
                yield [next(epoch) for _ in range(num_rows)]

    def _mix(self, once: Iterator[int], seeds: Iterator[int]) -> Iterator[int]:
        for number in range(self._rows_an_epoch):
            is_due = self._seeds_among(number + 1) > self._seeds_among(number)
            yield next(seeds) if is_due else next(once)

    def _seeds_among(self, num_rows: int) -> int:
        """How many of the first rows of an epoch are seeds."""
        return math.floor(num_rows * self._share + _ALMOST)


def _rounds(positions: Sequence[int], chance: random.Random) -> Iterator[int]:
    while True:
        shuffled = list(positions)
        chance.shuffle(shuffled)
        yield from shuffled


def micro_batches(lengths: Sequence[int], *, max_tokens: int, pass_tokens: int) -> list[list[int]]:
    """Positions in ``lengths`` that pass together: rows of like length, at most ``max_tokens`` padded tokens (one row
    at least).

    Of all such groups the cheapest, where every pass costs its padded tokens and ``pass_tokens`` more.
    """
    order = sorted(range(len(lengths)), key=lambda position: lengths[position])
    cheapest, begins = [0], [0]  # of the first n rows: what they cost, and where their last group begins
    for end, position in enumerate(order, start=1):
        width = lengths[position]
        first = max(0, min(end - 1, end - max_tokens // width))
        cost, begin = min((cheapest[begin] + (end - begin) * width, begin) for begin in range(first, end))
        cheapest.append(cost + pass_tokens)
        begins.append(begin)
    groups, end = list[list[int]](), len(order)
    while end:
        groups.append(order[begins[end] : end])
        end = begins[end]
    return groups[::-1]
