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
    """How one row chooses; temperature 0 is greedy, and so is one that is 0 for every practical purpose."""

    temperature: float
    top_p: float
    chance: random.Random

    @property
    def is_greedy(self) -> bool:
        return self.temperature < _COLD


NO_TOKEN = -1  # what a row chooses whose logits are no numbers
_MOST_DRAWS = 8
_COLD = 1e-4  # below this, logits that differ by a thousandth differ by a factor of e¹⁰ in probability


def choose_tokens(logits: Tensor, samplers: Sequence[Sampler]) -> Tensor:
    """logits [rows, vocabulary] → token ids [rows]; NO_TOKEN for a row that computed a NaN or an infinity."""
    best, chosen = logits.max(dim=-1)
    is_sound = best.isfinite()
    drawing = [row for row, sound in enumerate(is_sound.tolist()) if sound and not samplers[row].is_greedy]
    if drawing:
        index = torch.tensor(drawing, device=logits.device)
        chosen[index] = _sample(logits[index].float(), [samplers[row] for row in drawing])
    return torch.where(is_sound, chosen, NO_TOKEN)


def _sample(logits: Tensor, samplers: Sequence[Sampler]) -> Tensor:
    """Exact nucleus sampling that seldom sorts the vocabulary.

    Draw from the full softmax and accept the token if it lies in the nucleus, i.e. if the tokens likelier than it
    together hold less than top_p. Accepted draws follow the nucleus distribution renormalised. A draw is accepted
    with probability at least top_p; rows with a small top_p that still wait after a few draws are sorted.
    """
    device = logits.device
    temperature = torch.tensor([sampler.temperature for sampler in samplers], device=device)
    colder = (logits - logits.amax(dim=-1, keepdim=True)) / temperature[:, None]
    probabilities = torch.softmax(colder, dim=-1)  # [rows, vocabulary]
    ends = probabilities.cumsum(dim=-1)
    chosen = torch.zeros(len(samplers), dtype=torch.long, device=device)
    waiting = list(range(len(samplers)))
    for _ in range(_MOST_DRAWS):
        index = torch.tensor(waiting, device=device)
        tokens = _draw(ends[index], [samplers[row] for row in waiting])
        own = probabilities[index, tokens]
        likelier = torch.where(probabilities[index] > own[:, None], probabilities[index], 0.0).sum(dim=-1)
        chosen[index] = tokens
        accepted = (likelier < torch.tensor([samplers[row].top_p for row in waiting], device=device)) & (own > 0)
        waiting = [row for row, ok in zip(waiting, accepted.tolist(), strict=True) if not ok]
        if not waiting:
            return chosen
    index = torch.tensor(waiting, device=device)
    patient = [samplers[row] for row in waiting]
    chosen[index] = _draw(_nuclei(probabilities[index], patient).cumsum(dim=-1), patient)
    return chosen


def _draw(ends: Tensor, samplers: Sequence[Sampler]) -> Tensor:
    """One token a row from cumulated weights [rows, vocabulary]."""
    draws = torch.tensor([sampler.chance.random() for sampler in samplers], device=ends.device)
    tokens = torch.searchsorted(ends, (draws * ends[:, -1])[:, None], right=True)[:, 0]
    return tokens.clamp(max=ends.shape[-1] - 1)


def _nuclei(probabilities: Tensor, samplers: Sequence[Sampler]) -> Tensor:
    """``probabilities`` [rows, vocabulary], zero outside each row's nucleus; equally likely tokens stay together."""
    top_p = torch.tensor([sampler.top_p for sampler in samplers], device=probabilities.device)
    ordered = probabilities.sort(dim=-1, descending=True).values
    likelier = ordered.cumsum(dim=-1) - ordered
    size = (likelier < top_p[:, None]).sum(dim=-1, keepdim=True).clamp(min=1)
    return torch.where(probabilities >= ordered.gather(1, size - 1), probabilities, 0.0)
