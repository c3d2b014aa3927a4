"""Choosing the next token of every row, each with its own temperature, top-p and random numbers.

A row's draws depend on its request's seed alone, never on its neighbours.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampler:
    """How one row chooses; temperature 0 is greedy."""

    temperature: float
    top_p: float
    chance: random.Random


def choose_tokens(logits: Tensor, samplers: Sequence[Sampler]) -> Tensor:
    """logits [rows, vocabulary] → token ids [rows]."""
    chosen = logits.argmax(dim=-1)
    rows = [row for row, sampler in enumerate(samplers) if sampler.temperature > 0]
    if rows:
        index = torch.tensor(rows, device=logits.device)
        picked = _sample(logits[index].float(), [samplers[row] for row in rows])
        chosen[index] = picked
    return chosen


def _sample(logits: Tensor, samplers: Sequence[Sampler]) -> Tensor:
    """Exact nucleus sampling without sorting the vocabulary.

    Draw from the full softmax and accept the token if it lies in the nucleus, i.e. if the tokens likelier than it
    together hold less than top_p. Accepted draws follow the nucleus distribution renormalised; a draw is accepted
    with probability at least top_p.
    """
    device = logits.device
    temperature = torch.tensor([sampler.temperature for sampler in samplers], device=device)
    probabilities = torch.softmax(logits / temperature[:, None], dim=-1)  # [rows, vocabulary]
    ends = probabilities.cumsum(dim=-1)
    chosen = torch.zeros(len(samplers), dtype=torch.long, device=device)
    waiting = list(range(len(samplers)))
    while waiting:
        index = torch.tensor(waiting, device=device)
        draws = torch.tensor([samplers[row].chance.random() for row in waiting], device=device)
        tokens = torch.searchsorted(ends[index], (draws * ends[index, -1])[:, None], right=True)[:, 0]
        tokens = tokens.clamp(max=logits.shape[-1] - 1)
        own = probabilities[index, tokens]
        likelier = torch.where(probabilities[index] > own[:, None], probabilities[index], 0.0).sum(dim=-1)
        chosen[index] = tokens
        accepted = (likelier < torch.tensor([samplers[row].top_p for row in waiting], device=device)) & (own > 0)
        waiting = [row for row, ok in zip(waiting, accepted.tolist(), strict=True) if not ok]
    return chosen
