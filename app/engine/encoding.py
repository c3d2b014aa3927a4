"""Texts to token ids, so that a prompt begins as the base was taught and never ends before its answer.

Knows the tokenizer only: it works long before the weights are there.
"""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from app.core.errors import InvalidInput, Problem


class Encoder:
    """One tokenizer's reading of prompts and of the answers that follow them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, eos_id: int | None = None) -> None:
        """``eos_id``: the base's end-of-sequence where the tokenizer names none."""
        self._tokenizer = tokenizer
        self._eos_id = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else eos_id
        self._appends_end = self._ids("x")[-1:] == [self._eos_id] != self.continuation("x")[-1:]

    def prompt(self, text: str) -> list[int]:
        """With the start token where the tokenizer adds one; never empty. Raises InvalidInput for broken Unicode."""
        ids = self._ids(text)
        if self._appends_end:
            ids.pop()
        start = self._tokenizer.bos_token_id if self._tokenizer.bos_token_id is not None else self._eos_id
        return ids if ids or start is None else [start]

    def continuation(self, text: str) -> list[int]:
        """Without start or end. Raises InvalidInput for broken Unicode."""
        return self._ids(text, add_special_tokens=False)

    def clip(self, text: str, num_tokens: int) -> str:
        """The beginning of ``text``, at most ``num_tokens`` tokens of a prompt long. Raises InvalidInput as above."""
        clipped = text
        while len(self.prompt(clipped)) > num_tokens:
            spans = self._tokenizer(clipped, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
            over = len(self.prompt(clipped)) - num_tokens  # what is left may be cut into other tokens: look again
            clipped = clipped[: spans[-over][0]] if over < len(spans) else ""
            if not clipped:
                break
        return clipped

    def _ids(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        try:
            return list(self._tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])
        except (TypeError, UnicodeError) as error:
            raise InvalidInput([Problem("input", "the text is not Unicode: it holds half a character")]) from error
