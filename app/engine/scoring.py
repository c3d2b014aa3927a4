"""How likely texts are after their prompts. Prompts that are the same are computed once for all that follow them.

First the prompts of a batch side by side, which gives each first token's log-probability; then the continuations, each
on a copy of its prompt's keys and values, padded on the right: what comes later changes nothing before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from app.core.errors import SelfspecError
from app.core.records import GenerationRequest, Score, ScoreRequest
from app.engine.base import LoadedBase
from app.engine.forward import Prefill
from app.engine.passes import Passes, batches
from app.engine.rectangle import Rectangle
from app.engine.request_checks import check_fits


@dataclass(eq=False, slots=True)
class Continuation:
    """One request as tokens, and what is known of each so far."""

    adapter: str | None
    prompt: list[int]
    ids: list[int]  # the end of sequence included, if it counts
    told: list[float] = field(default_factory=list)  # log-probabilities of the first ids

    @property
    def place(self) -> tuple[str, int, list[int]]:
        """In the order in which prompts are computed: by adapter, then by length."""
        return self.adapter or "", len(self.prompt), self.prompt


def read(base: LoadedBase, request: ScoreRequest) -> Continuation:
    """As training reads a row. Raises InvalidInput for one that the base cannot read or that is too long for it."""
    prompt, ids = base.encode(request.prompt), base.encode_continuation(request.continuation)
    ids += [base.eos_id] * request.with_end
    check_fits("prompt", num_tokens=len(prompt), num_new=len(ids), context_tokens=base.info.context_tokens)
    return Continuation(request.adapter, prompt, ids)


def score(passes: Passes, requests: Many[ScoreRequest]) -> list[Score]:
    """One score a request, in order."""
    texts = [read(passes.base, request) for request in requests]
    ordered = sorted((text for text in texts if text.ids), key=lambda text: text.place)
    for adapter, of_adapter in groupby(ordered, key=lambda text: text.adapter):
        prompts = [list(same) for _, same in groupby(of_adapter, key=lambda text: text.prompt)]

        def fits(batch: list[list[Continuation]]) -> bool:
            width = len(batch[-1][0].prompt)  # the longest comes last
            return len(batch) * width <= passes.num_tokens and passes.holds(len(batch), width)

        for batch in batches(prompts, fits):
            _score(passes, adapter, batch)
    return [_score_of(text) for text in texts]


def _score(passes: Passes, adapter: str | None, prompts: Many[list[Continuation]]) -> None:
    """Score all that follows some prompts; ``prompts`` has the continuations of each."""
    rows = [passes.greedy(GenerationRequest("", adapter), same[0].prompt) for same in prompts]
    work, logits = passes.prefill(adapter, rows)
    for same, of_prompt in zip(prompts, logits, strict=True):
        for text, told in zip(same, _first(of_prompt, [text.ids[0] for text in same]), strict=True):
            text.told.append(told)
    rest = [(row, text) for row, same in enumerate(prompts) for text in same if len(text.ids) > 1]
    rest.sort(key=lambda pair: len(pair[1].ids))

    def fits(batch: list[tuple[int, Continuation]]) -> bool:
        num_new = len(batch[-1][1].ids) - 1
        width = max(work.lengths[row] for row, _ in batch)
        return len(batch) * num_new <= passes.num_logits() and passes.holds(len(batch), width + num_new)

    for batch in batches(rest, fits):
        _follow(passes, adapter, work, batch)


def _follow(passes: Passes, adapter: str | None, work: Prefill, batch: Many[tuple[int, Continuation]]) -> None:
    """Compute continuations, each after its row of ``work``: all their tokens but the last."""
    lengths = [work.lengths[row] for row, _ in batch]
    texts = [text for _, text in batch]
    width, num_new = max(lengths), max(len(text.ids) for text in texts) - 1
    past = Rectangle(passes.layout, len(batch), width + num_new)
    past.last = width
    most = max(1, passes.num_logits() // len(batch))

    def copy(slot: int) -> None:
        for row, (source, _) in enumerate(batch):
            past.take(row, work.rectangle, source, lengths[row])

    def compute(slot: int) -> list[list[float]]:
        start = past.last - width
        end = min(num_new, start + most)
        padding = [passes.base.eos_id] * num_new
        tokens = [[*text.ids[:-1], *padding][start:end] for text in texts]
        logits = passes.forward.extend(past, [length + start for length in lengths], tokens, slot)
        return [_next(row, text.ids[start + 1 : end + 1]) for row, text in zip(logits, texts, strict=True)]

    passes.run(adapter, copy)
    while past.last < width + num_new:
        for text, told in zip(texts, passes.run(adapter, compute), strict=True):
            text.told += told


@torch.inference_mode()
def _first(logits: Tensor, alternatives: list[int]) -> list[float]:
    """logits [vocabulary] → log-probability of each of several tokens in the same place."""
    numbers = logits.float()
    told: list[float] = (numbers[torch.tensor(alternatives, device=logits.device)] - numbers.logsumexp(-1)).tolist()
    return told


def _next(logits: Tensor, ids: list[int]) -> list[float]:
    """logits [new, vocabulary] → log-probability of each of the tokens that stand there, at most ``new``."""
    numbers = logits[: len(ids)].float()
    wanted = torch.tensor(ids, dtype=torch.long, device=logits.device)[:, None]
    told: list[float] = (numbers.gather(1, wanted)[:, 0] - numbers.logsumexp(-1)).tolist()
    return told


def _score_of(text: Continuation) -> Score:
    """Raises SelfspecError where the model computed no numbers."""
    log_probability = math.fsum(text.told)
    if math.isnan(log_probability):
        raise SelfspecError(f"{text.adapter or 'the base'} computed no numbers for this prompt")
    return Score(log_probability, len(text.ids))
