"""Does a generated row hold what the expert is judged by? By words in a row and by ROUGE-L, against every item.

What the user's own seeds hold too does not count: a task's instruction and the set phrases of its texts stand in seeds
and evaluation alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from app.core.recipe import Recipe
from app.core.records import Example, Seed
from app.pipeline.novelty import Likeness, NoveltyFilter
from app.pipeline.rouge import words_for


@dataclass(frozen=True, slots=True)
class Hit:
    """A row that is too like an item. ``kind`` "ngram": ``value`` words in a row are shared; "rouge_l": their F."""

    row: str  # Example.id
    item: str  # Seed.id
    kind: str
    value: float
    shared: str = ""  # the words in a row


class Contamination:
    """An index of everything that the expert is judged or chosen by."""

    def __init__(self, items: Iterable[Seed], *, seeds: Iterable[Seed], recipe: Recipe) -> None:
        """``items``: evaluation and held-out seeds; ``seeds``: those that are learned."""
        self._length, self._words = recipe.contamination_ngram, words_for(recipe.language)
        self._likeness = NoveltyFilter(recipe.contamination_threshold, words=self._words)
        self._owner: dict[bytes, str] = {}  # n-gram → the first item that has it
        self.num_items = 0
        for item in items:
            self.num_items += 1
            self._likeness.add(_question(item), item.id)
            for text in (_question(item), item.output, *item.references):
                for gram in self._grams(self._words(text)):
                    self._owner.setdefault(gram, item.id)
        for seed in seeds:
            for text in (seed.instruction, seed.input, seed.output):
                for gram in self._grams(self._words(text)):
                    self._owner.pop(gram, None)

    def judge(self, row: Example) -> tuple[Hit | None, Likeness]:
        """The hit if there is one, and the item that the row's question is most like."""
        likeness = self._likeness.judge(_question(row))
        for text in (row.instruction, row.input, row.output):
            if hit := self._longest_shared(row.id, self._words(text)):
                return hit, likeness
        if not likeness.is_new:
            return Hit(row.id, likeness.name, "rouge_l", round(likeness.score, 4)), likeness
        return None, likeness

    def _longest_shared(self, row: str, words: Sequence[str]) -> Hit | None:
        """The longest run of words that items have too, as one n-gram after the other."""
        owners = [self._owner.get(gram) for gram in self._grams(words)]
        best: Hit | None = None
        start = 0
        for place, owner in enumerate(owners):
            if owner is None:
                start = place + 1
            elif best is None or place - start + self._length > best.value:
                shared = words[start : place + self._length]
                best = Hit(row, owners[start] or owner, "ngram", len(shared), " ".join(shared))
        return best

    def _grams(self, words: Sequence[str]) -> Iterator[bytes]:
        for start in range(len(words) - self._length + 1):
            joined = " ".join(words[start : start + self._length])
            yield hashlib.blake2b(joined.encode(errors="surrogatepass"), digest_size=12).digest()


def _question(row: Seed | Example) -> str:
    """What tells a row from the others of its task."""
    return row.input or row.instruction
