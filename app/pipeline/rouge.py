"""ROUGE-L between two texts, as rouge-score counts it (no stemmer), fast enough for every pair that matters.

The longest common subsequence is found with the bits of whole numbers: a row of the usual table in a few operations
(Hyyrö, "Bit-parallel LCS-length computation revisited", 2004).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence

Words = Callable[[str], list[str]]
Masks = Mapping[Hashable, int]

_ASCII = re.compile(r"[a-z0-9]+")
# of scripts written without spaces each sign is a word: Thai, Lao, Myanmar, Khmer, kana, Chinese characters
_SIGN = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_ANY = re.compile(rf"[{_SIGN}]|[^\W_{_SIGN}]+")


def ascii_words(text: str) -> list[str]:
    """rouge-score's words: runs of a-z and 0-9 in the lower-cased text."""
    return _ASCII.findall(text.lower())


def any_words(text: str) -> list[str]:
    """Words of any script, case evened out."""
    return _ANY.findall(text.casefold())


def words_for(language: str) -> Words:
    """rouge-score's words for English; of other languages they would be fragments, or none at all."""
    return ascii_words if language.casefold() == "english" else any_words


def masks_of(words: Sequence[Hashable]) -> dict[Hashable, int]:
    """For each word the places where it stands, as bits."""
    masks: dict[Hashable, int] = {}
    for place, word in enumerate(words):
        masks[word] = masks.get(word, 0) | 1 << place
    return masks


def common_length(masks: Masks, num_words: int, other: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence of ``other`` and the ``num_words`` words that ``masks`` tells."""
    full = (1 << num_words) - 1
    row = full  # a zero bit: here the subsequence grows by one
    for word in other:
        if mask := masks.get(word):
            met = row & mask
            row = (row + met | row - met) & full
    return num_words - row.bit_count()


def f_measure(common: int, num_kept: int, num_new: int) -> float:
    """ROUGE-L F of a common subsequence that long; the same sum in the same order as rouge-score's."""
    if not common:
        return 0.0
    precision, recall = common / num_new, common / num_kept
    return 2 * precision * recall / (precision + recall)
