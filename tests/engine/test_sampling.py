"""The next token: drawn from the nucleus exactly, by each row's own random numbers."""

from __future__ import annotations

import math
from collections import Counter

import numpy
import pytest
import torch
from torch import Tensor

from app.engine.sampling import NO_TOKEN, Sampler, choose_tokens, logprobs_of, make_sampler

LOGITS = torch.tensor([2.0, 1.0, 1.0, 0.5, 0.0, -0.5, -1.0, -1.0, -2.0, -6.0])
NUM_DRAWS = 20_000


def nucleus(logits: Tensor, *, temperature: float, top_p: float) -> dict[int, float]:
    """By definition: tokens whose likelier ones together hold less than top_p, renormalised."""
    weights = [math.exp(float(logit) / temperature) for logit in logits]
    shares = [weight / sum(weights) for weight in weights]
    kept = {
        token: share
        for token, share in enumerate(shares)
        if sum(other for other in shares if other > share + 1e-9) < top_p
    }
    return {token: share / sum(kept.values()) for token, share in kept.items()}


def draw(logits: Tensor, samplers: list[Sampler]) -> list[int]:
    return choose_tokens(logits.expand(len(samplers), -1).clone(), samplers).tolist()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.98, 1.0])
def test_draws_follow_the_nucleus(temperature: float, top_p: float) -> None:
    """Pearson's statistic stays under its 99.9 % quantile (Wilson-Hilferty), for seeds that are fixed."""
    wanted = nucleus(LOGITS, temperature=temperature, top_p=top_p)
    chance = numpy.random.default_rng(11)
    drawn = Counter(draw(LOGITS, [Sampler(temperature, top_p, chance)] * NUM_DRAWS))
    assert set(drawn) <= set(wanted)
    large = {token: share for token, share in wanted.items() if share * NUM_DRAWS >= 5}
    statistic = sum((drawn[token] - share * NUM_DRAWS) ** 2 / (share * NUM_DRAWS) for token, share in large.items())
    freedom = max(1, len(large) - 1)
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3


def test_equally_likely_tokens_are_in_or_out_together() -> None:
    wanted = nucleus(torch.zeros(6), temperature=1.0, top_p=0.1)
    assert len(wanted) == 6
    chance = numpy.random.default_rng(2)
    assert set(draw(torch.zeros(6), [Sampler(1.0, 0.1, chance)] * 500)) == set(wanted)


def test_rows_of_one_batch_each_have_their_own_temperature_and_top_p() -> None:
    count = 400
    chances = [numpy.random.default_rng(seed) for seed in range(3)]
    samplers = [Sampler(0.0, 1.0, chances[0]), Sampler(1.0, 0.4, chances[1]), Sampler(5.0, 1.0, chances[2])]
    drawn = [draw(LOGITS, samplers) for _ in range(count)]
    assert {row[0] for row in drawn} == {0}
    assert {row[1] for row in drawn} == set(nucleus(LOGITS, temperature=1.0, top_p=0.4))
    assert len({row[2] for row in drawn}) >= 8


def test_a_row_draws_the_same_whatever_its_neighbours_do() -> None:
    def draws(*others: float) -> list[int]:
        chance = numpy.random.default_rng(5)
        mine = [Sampler(0.9, 0.9, chance)]
        rest = [Sampler(temperature, 0.3, numpy.random.default_rng(9)) for temperature in others]
        return [draw(LOGITS, [*rest, *mine])[-1] for _ in range(100)]

    assert draws() == draws(0.0, 2.0) == draws(1.0, 1.0, 1.0)
    assert len(set(draws())) > 1


@pytest.mark.parametrize("temperature", [0.01, 1e-6, 1e-30, 1e-50])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_a_temperature_near_zero_is_greedy(temperature: float, scale: float) -> None:
    """A bug: 1e-50 is zero as float32, every probability was not a number, and drawing never ended."""
    chance = numpy.random.default_rng(3)
    assert set(draw(LOGITS * scale, [Sampler(temperature, 1.0, chance)] * 200)) == {0}


def test_half_precision_logits_are_drawn_from_in_full() -> None:
    chance = numpy.random.default_rng(4)
    samplers = [Sampler(1.0, 0.9, chance)] * 2000
    drawn = choose_tokens(LOGITS.bfloat16().expand(2000, -1).clone(), samplers)
    assert set(drawn.tolist()) == set(nucleus(LOGITS, temperature=1.0, top_p=0.9))


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_logits_that_are_no_numbers_choose_no_token(poison: float) -> None:
    logits = LOGITS.repeat(3, 1)
    logits[1, 4] = poison
    chosen = choose_tokens(
        logits, [Sampler(temperature, 0.9, numpy.random.default_rng(0)) for temperature in (0.0, 1.0, 1.0)]
    )
    assert chosen[1] == -1
    assert chosen[0] == 0
    assert chosen[2] >= 0


def test_a_tiny_nucleus_of_a_flat_distribution_is_found() -> None:
    """A bug: a draw was accepted once in fifty thousand, and every other request waited for it."""
    logits = torch.zeros(50_000)
    logits[123] = 0.01
    assert draw(logits, [Sampler(1.0, 1e-9, numpy.random.default_rng(seed)) for seed in range(4)]) == [123] * 4


def test_forbidden_tokens_are_never_drawn() -> None:
    logits = LOGITS.clone()
    logits[:3] = -math.inf
    chance = numpy.random.default_rng(6)
    assert set(draw(logits, [Sampler(1.0, 1.0, chance)] * 2000)).isdisjoint({0, 1, 2})


@pytest.mark.parametrize("temperature", [0.7, 1.3])
@pytest.mark.parametrize("top_p", [0.6, 0.9, 1.0])
def test_a_vocabulary_of_many_blocks_is_drawn_from_exactly(temperature: float, top_p: float) -> None:
    """A thousand tokens, spread so that each block of the race holds some of the likely ones."""
    logits = LOGITS.repeat(103)[:1021] + torch.linspace(0, 2, 1021)
    wanted = nucleus(logits, temperature=temperature, top_p=top_p)
    chance = numpy.random.default_rng(12)
    drawn = Counter(draw(logits, [Sampler(temperature, top_p, chance)] * NUM_DRAWS))
    assert set(drawn) <= set(wanted)
    share_of = [sum(wanted.get(token, 0.0) for token in range(first, 1021, 10)) for first in range(10)]
    drawn_of = [sum(drawn[token] for token in range(first, 1021, 10)) for first in range(10)]
    for share, count in zip(share_of, drawn_of, strict=True):
        assert abs(count - share * NUM_DRAWS) <= 4 * math.sqrt(NUM_DRAWS * share * (1 - share)) + 1


@pytest.mark.parametrize("top_p", [0.9, 1.0])
def test_logits_off_in_their_last_bits_seldom_change_a_draw(top_p: float) -> None:
    """A bug: the same request, batched with others, got other last bits, and one draw in three came out different."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(200, 4000, generator=generator) * 2
    rounded = logits * (1 + 1e-3 * torch.randn(logits.shape, generator=generator))
    draws = [choose_tokens(each, [make_sampler(1.0, top_p, seed) for seed in range(200)]) for each in (logits, rounded)]
    assert int((draws[0] != draws[1]).sum()) <= 4


def test_any_integer_is_a_seed() -> None:
    for seed in (-1, 0, 2**64 - 1, 2**70):
        again = [draw(LOGITS, [make_sampler(1.0, 1.0, seed)]) for _ in range(2)]
        assert again[0] == again[1]


def test_likelihoods_are_told_to_the_rows_that_ask() -> None:
    logits = torch.stack([LOGITS, LOGITS.flip(0), LOGITS, LOGITS])
    told = logprobs_of(logits, [3, 0, 9, NO_TOKEN], [0, None, 2, 2])
    expected = torch.log_softmax(LOGITS, dim=-1).tolist()
    assert told[1] is None
    assert told[3] is None
    assert told[0] is not None
    assert told[0].top == ()
    assert told[0].chosen == pytest.approx(expected[3])
    assert told[2] is not None
    assert told[2].chosen == pytest.approx(expected[9])
    assert told[2].top[0][0] == 0
    assert [score for _, score in told[2].top] == pytest.approx(expected[:2])
    assert logprobs_of(logits, [0] * 4, [None] * 4) == [None] * 4


def test_more_alternatives_than_there_are_is_all_there_are() -> None:
    """A forbidden token is no alternative: its log-probability would be no number that JSON can tell."""
    logits = LOGITS.clone()[None]
    logits[0, 4:] = -math.inf
    (told,) = logprobs_of(logits.bfloat16(), [1], [50])
    assert told is not None
    assert [token for token, _ in told.top] == [0, 1, 2, 3] or [token for token, _ in told.top] == [0, 2, 1, 3]
    assert sum(math.exp(score) for _, score in told.top) == pytest.approx(1.0)
