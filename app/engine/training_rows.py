"""Training rows as token ids, kept compactly: about four bytes a token, and never a text longer than its encoding."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from app.core.records import TrainingRow
from app.engine.base import LoadedBase


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A row as token ids; ``num_prompt`` of them are the prompt, the last is end-of-sequence."""

    ids: list[int]
    num_prompt: int
    weight: float = 1.0  # factor of its loss

    @property
    def num_target(self) -> int:
        return len(self.ids) - self.num_prompt


class TokenRows:
    """The rows that fit ``max_length`` tokens, in their order; ``num_dropped`` were longer."""

    def __init__(self, base: LoadedBase, rows: Iterable[TrainingRow], *, max_length: int) -> None:
        self.num_dropped = 0
        self.is_seed: list[bool] = []
        self._ids, self._ends = array("i"), array("q", [0])
        self._num_prompt, self._weights = array("i"), array("d")
        for row in rows:
            encoded = encode_row(base, row)
            if len(encoded.ids) > max_length:
                self.num_dropped += 1
                continue
            self.is_seed.append(row.is_seed)
            self._ids.extend(encoded.ids)
            self._ends.append(len(self._ids))
            self._num_prompt.append(encoded.num_prompt)
            self._weights.append(encoded.weight)

    def __len__(self) -> int:
        return len(self._num_prompt)

    def __getitem__(self, position: int) -> TokenRow:
        ids = self._ids[self._ends[position] : self._ends[position + 1]].tolist()
        return TokenRow(ids, self._num_prompt[position], self._weights[position])

    @property
    def num_tokens(self) -> int:
        return len(self._ids)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(end - begin for begin, end in zip(self._ends, self._ends[1:], strict=False))

    @property
    def digest(self) -> str:
        """Of everything that training sees of them."""
        found = hashlib.sha256(bytes(self.is_seed))
        for numbers in (self._ids, self._ends, self._num_prompt, self._weights):
            found.update(numbers)
        return found.hexdigest()


def encode_row(base: LoadedBase, row: TrainingRow) -> TokenRow:
    """Prompt, target and end-of-sequence as ids; without the last an expert would never stop."""
    prompt = base.encode(row.prompt)
    return TokenRow([*prompt, *base.encode_continuation(row.target), base.eos_id], len(prompt), row.weight)
