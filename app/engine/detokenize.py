"""Tokens in, text out, while an answer is being written; and where a stop text ends it.

Knows one tokenizer's ``decode`` and nothing else of it. The pieces, joined, are what decoding all tokens at once
gives, cut at the earliest stop text. Exception: bytes that spell no character after more than ``_MOST_OPEN`` lone byte
tokens in a row; ``decode`` would take the whole run back, here a character once told stays told.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_MOST_OPEN = 32  # tokens decoded again each time, while their text may still change
_UNFINISHED = "\ufffd"  # what decode writes for part of a character
_MAY_SHRINK = frozenset(" 'nrv")  # what a text may end with and be changed by clean_up_tokenization_spaces later


class TextStream:
    """The text of one answer, token by token, at a cost that does not grow with its length.

    ``stopped``: a stop text is complete; it and what follows are not part of the text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = ()) -> None:
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        self._cleans = bool(tokenizer.clean_up_tokenization_spaces)
        self._before: list[int] = []  # tokens whose text is final, the last few: decoding depends on what precedes
        self._before_text = ""
        self._open: list[int] = []  # tokens whose text may still change
        self._open_text = ""
        self._held = ""  # final, but it may be the beginning of a stop text
        self.stopped = False

    def push(self, token_id: int) -> str:
        """Take the next token; returns the text that is certain by now, often empty."""
        if self.stopped or not self._take(token_id):
            return ""
        if self._stop and (end := self._find_stop()) is not None:
            told, self.stopped = (self._held + self._open_text)[:end], True
            self._held = self._open_text = ""
            return told
        self._settle(token_id)
        return self._release()

    def finish(self) -> str:
        """The text held back, when no more tokens follow."""
        rest, self._held, self._open_text, self._open = self._held + self._open_text, "", "", []
        return rest

    def _take(self, token_id: int) -> bool:
        """Decode one token more; False for one that leaves no trace, such as a special one."""
        text = self._decode([*self._before, *self._open, token_id])[len(self._before_text) :]
        if text == self._open_text and self._is_skipped(token_id):
            return False
        self._open.append(token_id)
        self._open_text = text
        return True

    def _settle(self, token_id: int) -> None:
        """Close what later tokens cannot change any more, and what has been open for too long."""
        is_whole = not self._open_text.endswith(_UNFINISHED)
        if is_whole and (len(self._open) >= _MOST_OPEN or not self._may_change(token_id)):
            self._close(len(self._open), self._open_text)
        elif len(self._open) > _MOST_OPEN + 4:  # a character has four bytes at most
            self._settle_part()

    def _settle_part(self) -> None:
        """Of a long run that stays open, close the part before one of its last tokens, if it does not depend on it."""
        for size in range(len(self._open) - 1, max(len(self._open) - 5, 0), -1):
            kept = self._decode([*self._before, *self._open[:size]])[len(self._before_text) :]
            joint = self._open[size - 4 : size]
            rest = self._decode([*joint, *self._open[size:]])[len(self._decode(joint)) :]
            if kept + rest == self._open_text:
                tokens = self._open[size:]
                self._close(size, kept)
                self._open, self._open_text = tokens, rest
                return

    def _close(self, size: int, text: str) -> None:
        self._held += text
        self._before = self._open[:size]
        self._before_text = self._decode(self._before)
        self._open, self._open_text = [], ""

    def _release(self) -> str:
        """What is final and begins no stop text."""
        told = self._held[: len(self._held) - self._length_held()]
        self._held = self._held[len(told) :]
        return told

    def _length_held(self) -> int:
        """Length of the longest end of ``_held`` that is the beginning of a stop text."""
        longest = 0
        for stop in self._stop:
            at = self._held.find(stop[0], max(len(self._held) - len(stop) + 1, 0))
            while at >= 0 and not stop.startswith(self._held[at:]):
                at = self._held.find(stop[0], at + 1)
            longest = max(longest, len(self._held) - at if at >= 0 else 0)
        return longest

    def _find_stop(self) -> int | None:
        """Where the earliest stop text begins in what was not told yet."""
        text = self._held + self._open_text
        return min((at for stop in self._stop if (at := text.find(stop)) >= 0), default=None)

    def _may_change(self, token_id: int) -> bool:
        """Whether later tokens may change the open text: a run of lone bytes, a space before a dot."""
        if str(self._tokenizer.convert_ids_to_tokens(token_id)).startswith("<0x"):
            return True
        return self._cleans and self._open_text[-1:] in _MAY_SHRINK

    def _is_skipped(self, token_id: int) -> bool:
        """Special tokens, and numbers beyond the vocabulary."""
        if self._tokenizer.convert_ids_to_tokens(token_id) is None:
            return True
        return not self._decode([token_id]) and bool(self._tokenizer.decode([token_id], skip_special_tokens=False))

    def _decode(self, token_ids: list[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=True))


def token_text(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    """One token's text as it stands within an answer, its leading space included; special tokens by name."""
    once, twice = (
        str(tokenizer.decode([token_id] * count, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        for count in (1, 2)
    )
    return twice[len(once) :]
