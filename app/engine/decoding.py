"""One batch from prompts to texts: pack, prefill, decode; rows that ended leave the batch.

Knows nothing of queues or adapters' files: each row brings its slot.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache

from app.engine.base import LoadedBase
from app.engine.sampling import NO_TOKEN, Sampler, choose_tokens
from app.engine.slots import Segments

_SHRINK_BELOW = 0.8  # share of live rows under which the ended ones are cut out of cache and batch


@dataclass(eq=False, slots=True)
class Row:
    """One sequence of the batch."""

    prompt_ids: list[int]
    slot: int
    sampler: Sampler
    max_new_tokens: int
    stop: tuple[str, ...]
    is_cancelled: Callable[[], bool] = lambda: False
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: str | None = None  # a Completion's, or "error": the model computed no numbers


def make_sampler(temperature: float, top_p: float, seed: int) -> Sampler:
    """A sampler with its own random numbers."""
    return Sampler(temperature, top_p, random.Random(seed))


class Decoder:
    """Runs batches on one base."""

    def __init__(self, base: LoadedBase, segments: Segments) -> None:
        self._base, self._segments = base, segments

    @torch.inference_mode()
    def run(self, rows: Sequence[Row], *, on_row_end: Callable[[Row], None]) -> None:
        """Decode until every row has ended; ``on_row_end`` is called for each as it does."""
        live = sorted(rows, key=lambda row: row.slot)
        tokens, mask = self._pad_left([row.prompt_ids for row in live])
        cache = DynamicCache(config=self._base.model.config)
        while live:
            self._segments.set([row.slot for row in live], num_tokens=tokens.shape[1])
            logits = self._forward(tokens, mask, cache)  # [rows, vocabulary]
            chosen = choose_tokens(logits, [row.sampler for row in live])
            for row, token in zip(live, chosen.tolist(), strict=True):
                if row.finish_reason is None and self._advance(row, token):
                    on_row_end(row)
            keep = [index for index, row in enumerate(live) if row.finish_reason is None]
            if not keep:
                return
            if len(keep) < _SHRINK_BELOW * len(live):
                index = torch.tensor(keep, device=mask.device)
                cache.batch_select_indices(index)
                mask, chosen = mask[index], chosen[index]
                live = [live[row] for row in keep]
            tokens = chosen[:, None]
            mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)

    def log_probabilities(self, prompt_ids: Sequence[int], slot: int) -> Tensor:
        """Next-token log-probabilities at every position of one prompt, float32 [tokens, vocabulary]."""
        with torch.inference_mode():
            self._segments.set([slot], num_tokens=len(prompt_ids))
            tokens = torch.tensor([list(prompt_ids)], device=self._base.device)
            return torch.log_softmax(self._base.model(input_ids=tokens, use_cache=False).logits[0].float(), dim=-1)

    def _forward(self, tokens: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        arguments = self._base.forward_arguments(
            attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        logits: Tensor = self._base.model(input_ids=tokens, **arguments).logits
        return logits[:, -1]

    def _pad_left(self, prompts: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        width = max(len(prompt) for prompt in prompts)
        tokens = [[self._base.eos_id] * (width - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        device = self._base.device
        return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)

    def _advance(self, row: Row, token: int) -> bool:
        """Take one token; True if the row ends with it."""
        if token == NO_TOKEN:
            return self._end(row, "error")
        if token in self._base.eos_ids:
            return self._end(row, "stop")
        row.token_ids.append(token)
        if row.stop and self._meets_stop(row):
            return self._end(row, "stop")
        if len(row.token_ids) >= row.max_new_tokens or row.is_cancelled():
            return self._end(row, "length")
        return False

    def _meets_stop(self, row: Row) -> bool:
        longest = max(len(stop.encode()) for stop in row.stop)
        tail = self._text(row.token_ids[-(longest + 4) :])  # a token holds a byte at least
        return any(stop in tail for stop in row.stop) and self._cut(row) is not None

    def _cut(self, row: Row) -> int | None:
        text = self._text(row.token_ids)
        return min((at for stop in row.stop if (at := text.find(stop)) >= 0), default=None)

    def _end(self, row: Row, reason: str) -> bool:
        row.text = self._text(row.token_ids)[: self._cut(row)]
        row.finish_reason = reason
        return True

    def _text(self, token_ids: list[int]) -> str:
        return str(self._base.tokenizer.decode(token_ids, skip_special_tokens=True))
