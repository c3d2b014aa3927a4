"""Choosing the next token of every row, each with its own temperature, top-p and random numbers; and how likely it was.

A row's draws depend on its request's seed and on its own logits, never on its neighbours. Tokens race: each gets an
exponential random number, divided by its weight, and the first one wins (Gumbel-max in another dress). A logit that
is off in its last bits, as in another batch's matrix product, then changes only a draw that was nearly a tie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampler:
    """How one row chooses; temperature 0 is greedy, and so is one that is 0 for every practical purpose."""

    temperature: float
    top_p: float
    chance: np.random.Generator

    @property
    def is_greedy(self) -> bool:
        return self.temperature < _COLD


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Natural-log probabilities at temperature 1: the chosen token's; token ids with theirs, likeliest first."""

    chosen: float
    top: tuple[tuple[int, float], ...] = ()


NO_TOKEN = -1  # what a row chooses whose logits are no numbers
_MOST_DRAWS = 8
_MOST_CACHED = 2**20  # numbers of float32 that are read again before they leave a processor's cache
_COLD = 1e-4  # below this, logits that differ by a thousandth differ by a factor of e¹⁰ in probability
_BLOCK = 256  # tokens that race together: a draw needs vocabulary / _BLOCK + _BLOCK random numbers


def make_sampler(temperature: float, top_p: float, seed: int) -> Sampler:
    """A sampler with its own random numbers; any integer is a seed."""
    return Sampler(temperature, top_p, np.random.default_rng(seed % 2**64))


def choose_tokens(logits: Tensor, samplers: Sequence[Sampler]) -> Tensor:
    """logits [rows, vocabulary] → token ids [rows]; NO_TOKEN for a row that computed a NaN or an infinity."""
    best = logits.amax(dim=-1)
    sound = [row for row, is_sound in enumerate(best.isfinite().tolist()) if is_sound]
    greedy = [row for row in sound if samplers[row].is_greedy]
    drawing = [row for row in sound if not samplers[row].is_greedy]
    chosen = torch.full((len(samplers),), NO_TOKEN, device=logits.device)
    if greedy:
        index = torch.tensor(greedy, device=logits.device)
        chosen[index] = _pick(logits, index).max(dim=-1).indices
    for rows in _parts(drawing, logits):
        index = torch.tensor(rows, device=logits.device)
        chosen[index] = _sample(_pick(logits, index).float(), best[index].float(), [samplers[row] for row in rows])
    return chosen


def _parts(rows: Sequence[int], logits: Tensor) -> Iterator[Sequence[int]]:
    """On a processor so few rows at a time that what is made of their logits stays in its caches; else all at once."""
    size = max(1, _MOST_CACHED // logits.shape[-1]) if logits.device.type == "cpu" else max(1, len(rows))
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _pick(logits: Tensor, index: Tensor) -> Tensor:
    """The rows of ``index``, without a copy if these are all."""
    return logits if len(index) == len(logits) else logits[index]


def logprobs_of(logits: Tensor, chosen: Sequence[int], top: Sequence[int | None]) -> list[Likelihood | None]:
    """How likely each row's token was, with ``top[row]`` alternatives; None for a row that asks for None.

    logits [rows, vocabulary], as they were chosen from: a token that was forbidden there is no alternative.
    """
    asking = [row for row, wanted in enumerate(top) if wanted is not None and chosen[row] != NO_TOKEN]
    told: list[Likelihood | None] = [None] * len(top)
    if asking:
        index = torch.tensor(asking, device=logits.device)
        mine = logits[index].float()  # [asking, vocabulary]
        own = mine.gather(1, torch.tensor([[chosen[row]] for row in asking], device=logits.device))
        best = mine.topk(min(max(top[row] or 0 for row in asking), mine.shape[-1]))  # likeliest first
        scores = torch.cat([own, best.values], dim=-1) - mine.logsumexp(dim=-1, keepdim=True)
        for row, tokens, (mine_own, *others) in zip(asking, best.indices.tolist(), scores.tolist(), strict=True):
            pairs = list(zip(tokens, others, strict=True))[: top[row]]
            told[row] = Likelihood(mine_own, tuple(pair for pair in pairs if pair[1] > -torch.inf))
    return told


def _sample(logits: Tensor, best: Tensor, samplers: Sequence[Sampler]) -> Tensor:
    """Exact nucleus sampling that seldom sorts the vocabulary.

    Draw from the full softmax and accept the token if it lies in the nucleus, i.e. if the tokens likelier than it
    together hold less than top_p. Accepted draws follow the nucleus distribution renormalised. A draw is accepted
    with probability at least top_p; rows with a small top_p that still wait after a few draws are sorted.
    """
    device = logits.device
    weights = _weights(logits, best, torch.tensor([sampler.temperature for sampler in samplers], device=device))
    masses = weights.sum(dim=-1)  # [rows, blocks]
    totals = masses.sum(dim=-1)
    nuclei = totals * torch.tensor([sampler.top_p for sampler in samplers], device=device)  # the mass of each
    chosen = torch.zeros(len(samplers), dtype=torch.long, device=device)
    waiting = list(range(len(samplers)))
    for _ in range(_MOST_DRAWS):
        index = torch.tensor(waiting, device=device)
        chosen[index] = _draw(weights, masses, index, [samplers[row] for row in waiting])
        accepted = _lies_inside(weights, chosen, totals, nuclei, index).tolist()
        waiting = [row for row, ok in zip(waiting, accepted, strict=True) if not ok]
        if not waiting:
            return chosen
    index = torch.tensor(waiting, device=device)
    kept = _cut_to_nuclei(weights[index], nuclei[index])
    rows = torch.arange(len(waiting), device=device)
    chosen[index] = _draw(kept, kept.sum(dim=-1), rows, [samplers[row] for row in waiting])
    return chosen


def _weights(logits: Tensor, best: Tensor, temperature: Tensor) -> Tensor:
    """Probabilities up to each row's factor, the likeliest 1: [rows, blocks, _BLOCK], zeros after the vocabulary."""
    num_rows, vocabulary = logits.shape
    num_blocks = -(-vocabulary // _BLOCK)
    weights = logits.new_empty(num_rows, num_blocks * _BLOCK)
    weights[:, vocabulary:] = 0.0
    inside = weights[:, :vocabulary]
    torch.sub(logits, best[:, None], out=inside)
    inside.div_(temperature[:, None]).exp_()
    return weights.view(num_rows, num_blocks, _BLOCK)


def _draw(weights: Tensor, masses: Tensor, index: Tensor, samplers: Sequence[Sampler]) -> Tensor:
    """One token for each row of ``index``: a race of blocks, then of the winner's tokens. Both in float64."""
    num_blocks = masses.shape[1]
    noise = np.stack([sampler.chance.standard_exponential(num_blocks + _BLOCK) for sampler in samplers])
    times = torch.from_numpy(noise).clamp(min=1e-300).to(weights.device)  # [rows, blocks + _BLOCK]
    blocks = (masses[index] / times[:, :num_blocks]).argmax(dim=-1)
    winners = (weights[index, blocks] / times[:, num_blocks:]).argmax(dim=-1)
    return blocks * _BLOCK + winners


def _lies_inside(weights: Tensor, chosen: Tensor, totals: Tensor, nuclei: Tensor, index: Tensor) -> Tensor:
    """Whether the tokens likelier than the chosen one leave room for it in the nucleus, for the rows of ``index``.

    Only blocks that hold a likelier token are looked into, and none where all the others together leave room.
    """
    own = weights.flatten(1)[index, chosen[index]]
    is_doubtful = own <= totals[index] - nuclei[index]
    rows, blocks = ((weights.amax(dim=-1)[index] > own[:, None]) & is_doubtful[:, None]).nonzero(as_tuple=True)
    looked = weights[index[rows], blocks]  # [blocks of all rows, _BLOCK]
    likelier = weights.new_zeros(len(index), weights.shape[1])
    likelier[rows, blocks] = torch.where(looked > own[rows, None], looked, 0.0).sum(dim=-1)
    return ~is_doubtful | (likelier.sum(dim=-1) < nuclei[index])


def _cut_to_nuclei(weights: Tensor, nuclei: Tensor) -> Tensor:
    """``weights`` [rows, blocks, _BLOCK], zero outside each row's nucleus; equally likely tokens stay together."""
    ordered = weights.flatten(1).sort(dim=-1, descending=True).values
    likelier = ordered.cumsum(dim=-1) - ordered
    size = (likelier < nuclei[:, None]).sum(dim=-1, keepdim=True).clamp(min=1)
    return torch.where(weights >= ordered.gather(1, size - 1)[:, :, None], weights, 0.0)
