"""The yield meter: how much of what was written is kept, told while it is written, and when it is too little to go on.

Seconds are told but never written into a product's files.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain, islice
from typing import Any

from app.core.recipe import Recipe
from app.core.records import Candidate, Rejection, Reply

_NUM_REASONS, _NUM_SAMPLES = 4, 3
_SAMPLE_CHARS = 160


class YieldMeter:
    """Counts what was written and what became of it; keeps a few samples of what was refused."""

    def __init__(self, recipe: Recipe) -> None:
        self.num_prompts, self.num_read, self.num_tokens, self.seconds = 0, 0, 0, 0.0
        self.num_accepted = 0
        self.reasons: Counter[str] = Counter()
        self._recipe = recipe
        self._samples: defaultdict[str, list[Rejection]] = defaultdict(list)  # by reason

    @property
    def num_written(self) -> int:
        return self.num_accepted + self.reasons.total()

    def read(self, reply: Reply, results: Sequence[Candidate | Rejection]) -> None:
        """Count a reply and the verdicts on its items."""
        self.num_prompts += 1
        self.num_tokens += reply.num_tokens
        for result in results:
            if isinstance(result, Candidate):
                self.num_accepted += 1
            else:
                self.reasons[result.reason] += 1
                if len(self._samples[result.reason]) < _NUM_SAMPLES:
                    self._samples[result.reason].append(result)

    def figures(self) -> dict[str, Any]:
        """Everything counted, JSON-ready. ``seconds``: of writing, since this attempt at the stage began;
        ``prompts_read``: of those whose replies were looked at, there being not enough before.
        """
        return {
            "prompts": self.num_prompts,
            "prompts_read": self.num_read,
            "written": self.num_written,
            "accepted": self.num_accepted,
            "tokens": self.num_tokens,
            "seconds": round(self.seconds, 3),
            "rejected": dict(self.reasons.most_common()),
        }

    def samples(self) -> list[dict[str, str]]:
        """A few of the refused items, of the most frequent reasons, each with its reason; long texts are cut."""
        rounds = zip(*(_padded(self._samples[reason]) for reason, _ in self.reasons.most_common()), strict=True)
        drawn = (sample for sample in chain.from_iterable(rounds) if sample is not None)
        return [
            {"reason": sample.reason, "detail": sample.detail, "text": _cut(sample.text)}
            for sample in islice(drawn, _NUM_SAMPLES)
        ]

    def fault(self) -> str | None:
        """Why it is not worth going on, with what was refused and a remedy; None if it is, or too early to say."""
        recipe = self._recipe
        if self.num_prompts < recipe.yield_window or self.num_accepted >= recipe.min_yield * self.num_written:
            return None
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common(_NUM_REASONS))
        samples = "; ".join(f"{_cut(each['text'])!r} ({_why(each)})" for each in self.samples())
        other = "anchored" if recipe.prompt_style == "list" else "list"
        return (
            f"{self.num_accepted} of {self.num_written} written items were accepted from {self.num_prompts} prompts, "
            f"fewer than recipe.min_yield = {recipe.min_yield:g} allows. Refused: {reasons}. For example {samples}. "
            f"Try recipe.prompt_style {other}, other seeds or a larger base, or go on all the same with min_yield 0"
        )


def _padded(samples: Sequence[Rejection]) -> list[Rejection | None]:
    return [*samples, *[None] * (_NUM_SAMPLES - len(samples))]


def _why(sample: dict[str, str]) -> str:
    return f"{sample['reason']}: {sample['detail']}" if sample["detail"] else sample["reason"]


def _cut(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _SAMPLE_CHARS else f"{plain[:_SAMPLE_CHARS]}…"
