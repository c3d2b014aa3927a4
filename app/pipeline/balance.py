"""How many generated rows of each answer a task may have, so that they do not shift what the seeds say is usual.

A small base writes one label far more often than it is true; learned as it is, that becomes the expert's bias.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from app.core.records import Example, Seed
from app.core.texts import evened
from app.pipeline.validity import is_closed

_SMOOTHING = 0.5  # added to each label's count among the seeds
_SLACK = 2.0  # a label may have so many times what the scarcest label's rows would allow


class Balance:
    """Quotas by task and answer; rows that come after a quota is full are refused. Tasks without seeds have none."""

    def __init__(self, seeds: Sequence[Seed], examples: Iterable[Example]) -> None:
        """``examples`` are only counted."""
        written: dict[str, Counter[str]] = {}
        for example in examples:
            if example.task is not None:
                written.setdefault(example.task, Counter())[evened(example.output)] += 1
        self._left: dict[tuple[str, str], int] = {}
        for task, counts in written.items():
            own = [seed for seed in seeds if seed.task == task]
            if own:
                quotas = _label_quotas(own, counts) if is_closed(own) else _usual_quotas(own, counts)
                self._left.update({(task, answer): quota for answer, quota in quotas.items()})

    def refuses(self, example: Example) -> bool:
        """Whether the row is one too many; one that is not counts from then on."""
        key = (example.task or "", evened(example.output))
        left = self._left.get(key)
        if left is None:
            return False
        self._left[key] = left - 1
        return left <= 0


def _label_quotas(seeds: Sequence[Seed], written: Counter[str]) -> dict[str, int]:
    """Labels in the seeds' shares, as many as the scarcest label that was written at all allows, with some slack."""
    counts = Counter(evened(seed.output) for seed in seeds)
    total = len(seeds) + _SMOOTHING * len(counts)
    shares = {label: (count + _SMOOTHING) / total for label, count in counts.items()}
    rows = min((_SLACK * written[label] / share for label, share in shares.items() if written[label]), default=0.0)
    return {label: max(1, round(rows * share)) for label, share in shares.items()}


def _usual_quotas(seeds: Sequence[Seed], written: Counter[str]) -> dict[str, int]:
    """Answers that several inputs have (such as "None"): their share of the seeds, one seed's at least, reckoned on all
    other rows."""
    counts = Counter(evened(seed.output) for seed in seeds)
    return {
        answer: max(1, round((written.total() - number) * max(1, counts[answer]) / len(seeds)))
        for answer, number in written.items()
        if number > 1
    }
