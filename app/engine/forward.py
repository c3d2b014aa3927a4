"""Forward passes: prompts in chunks, one more token for every running sequence, log-probabilities of a text.

Knows the base, its slots and rectangles; nothing of who waits, samples or listens.
"""

from __future__ import annotations

from collections.abc import Sequence as Many

import torch
from torch import Tensor

from app.engine import attention
from app.engine.bands import Band
from app.engine.base import LoadedBase
from app.engine.prefixes import PAGE
from app.engine.rectangle import Layout, Rectangle, Span
from app.engine.sequences import Sequence
from app.engine.slots import Segments
from app.engine.step_graphs import Record, StepGraphs, padded


class Prefill:
    """Prompts being computed side by side, as wide as the longest; where kept pages begin one, it starts after them."""

    def __init__(self, layout: Layout, sequences: Many[Sequence], known: Many[Many[Span]]) -> None:
        """``known``: for each sequence, the pages it begins with."""
        self.sequences = list(sequences)
        self.lengths = [sequence.num_tokens for sequence in sequences]
        self.width = max(self.lengths)
        self.rectangle = Rectangle(layout, len(sequences), self.width)
        starts = []
        for row, (sequence, pages) in enumerate(zip(sequences, known, strict=True)):
            left = self.width - self.lengths[row]
            for number, span in enumerate(pages):
                self.rectangle.write(row, left + number * PAGE, span)
            starts.append(left + len(pages) * PAGE)
            sequence.cached_tokens = len(pages) * PAGE
        self.rectangle.last = min(starts)

    @property
    def is_done(self) -> bool:
        return self.rectangle.last == self.width

    @property
    def num_left(self) -> int:
        """Tokens still to be computed, padding included."""
        return len(self.sequences) * (self.width - self.rectangle.last)

    def read(self, row: int, start: int, end: int) -> Span:
        """Copies of a sequence's tokens ``start`` to ``end``."""
        left = self.width - self.lengths[row]
        return self.rectangle.read(row, left + start, left + end)


class Forward:
    """Runs the base on what it is given. Every method belongs to the engine's thread."""

    def __init__(self, base: LoadedBase, segments: Segments, *, record: Record | None = None) -> None:
        """``record``: how steps of one token a row are recorded; None: they are computed anew each time."""
        self._base, self._segments = base, segments
        self._graphs = StepGraphs(base, segments, record) if record is not None else None
        attention.install(base.model)

    @property
    def num_replays(self) -> int:
        """Steps that were replayed, so far."""
        return self._graphs.num_replays if self._graphs is not None else 0

    def prefill(self, work: Prefill, max_tokens: int) -> Tensor:
        """Compute the next columns, at most ``max_tokens`` tokens → logits after the last [rows, vocabulary]."""
        rectangle, rows = work.rectangle, len(work.sequences)
        end = min(work.width, rectangle.last + max(1, max_tokens // rows))
        tokens = []
        for sequence, length in zip(work.sequences, work.lengths, strict=True):
            left = work.width - length
            padding = [self._base.eos_id] * max(0, min(end, left) - rectangle.last)
            tokens.append(padding + sequence.ids[max(0, rectangle.last - left) : max(0, end - left)])
        lengths = [end - (work.width - length) for length in work.lengths]
        logits = self._run(tokens, lengths, rectangle, [sequence.slot for sequence in work.sequences])
        rectangle.last = end
        return logits[:, -1]

    def decode(self, band: Band) -> Tensor:
        """Compute every sequence's newest token → logits of the next [rows, vocabulary], until the next step."""
        sequences, graphs = band.sequences, self._graphs
        band.prepare_step(len(sequences) if graphs is None else padded(len(sequences)))
        tokens = [sequence.token_ids[-1] for sequence in sequences]
        lengths = [length + 1 for length in band.lengths]
        slots = [sequence.slot for sequence in sequences]
        logits = graphs.decode(band.rectangle, tokens, lengths, slots) if graphs is not None else None
        if logits is None:
            logits = self._run([[token] for token in tokens], lengths, band.rectangle, slots)[:, -1]
        band.stepped()
        return logits

    def extend(self, past: Rectangle, lengths: list[int], tokens: list[list[int]], slot: int) -> Tensor:
        """Compute the next columns of rows of one adapter → logits after each of them [rows, new, vocabulary].

        ``lengths``: of each row before. A row that ends earlier is padded on the right, with any token.
        """
        new = len(tokens[0])
        logits = self._run(tokens, [length + new for length in lengths], past, [slot] * len(tokens), kept=new)
        past.last += new
        return logits

    def log_probabilities(self, prompt_ids: Many[int], slot: int) -> Tensor:
        """Next-token log-probabilities at every position of one prompt, float32 [tokens, vocabulary]."""
        with torch.inference_mode():
            self._segments.set([slot], num_tokens=len(prompt_ids))
            tokens = torch.tensor([list(prompt_ids)], device=self._base.device)
            return torch.log_softmax(self._base.model(input_ids=tokens, use_cache=False).logits[0].float(), dim=-1)

    def _run(
        self, tokens: list[list[int]], lengths: list[int], past: Rectangle, slots: list[int], *, kept: int = 1
    ) -> Tensor:
        """Logits after the last ``kept`` columns [rows, kept, vocabulary].

        ``lengths``: of each row afterwards, its new tokens included; negative for one that is all padding.
        """
        device = self._base.device
        ids = torch.tensor(tokens, device=device)
        new = ids.shape[1]
        width = past.last - past.first + new
        column = torch.arange(width, device=device)
        start = (width - torch.tensor(lengths, device=device))[:, None]  # the column of each row's first token
        positions = (column[-new:] - start).clamp(min=0)
        arguments = self._base.forward_arguments(
            attention_mask=(column >= start).long(),
            position_ids=positions,
            past_key_values=past,
            use_cache=True,
            logits_to_keep=kept,
        )
        self._segments.set(slots, num_tokens=new)
        logits: Tensor = self._base.model(input_ids=ids, **arguments).logits
        return logits[:, -kept:]
