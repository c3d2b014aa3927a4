"""Beginnings of prompts are computed once for each adapter, and never seen by another."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from app.engine.prefixes import PAGE, PrefixStore
from app.engine.rectangle import Span
from tests.engine.batches import Batch
from tests.engine.tiny import FAMILIES, make_bank, make_base, write_adapter

SHOTS = list(range(30, 80))  # fifty tokens that all prompts begin with


def prompts(count: int) -> list[list[int]]:
    return [[1, *SHOTS, 100 + number, 101 + number] for number in range(count)]


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # PEFT, of Conv1D layers
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_prompts_computed_whole(family: str, tmp_path: Path) -> None:
    """Two experts and the base asked with the same demonstrations, again and again, in one batch."""
    base = make_base(family)
    bare = copy.deepcopy(base.model)
    folders = {name: write_adapter(bare, tmp_path / name, seed=seed) for seed, name in enumerate("ab", 1)}
    asked = [(expert, prompt) for prompt in prompts(5) for expert in (None, "a", "b")]
    bank = make_bank(base)
    said, cached = [], []
    for prefix_bytes in (0, 1 << 30):
        batch = Batch(base, folders, prefix_bytes=prefix_bytes, bank=bank)
        rows = [batch.ask(prompt, adapter=expert, max_new_tokens=6) for expert, prompt in asked]
        batch.run()
        said.append([row.token_ids for row in rows])
        cached.append(batch.counts["cached_tokens"])
    assert said[0] == said[1]
    assert cached == [0, 3 * 4 * 3 * PAGE]  # three experts, all but the first prompt, three whole pages


def test_a_hundred_items_with_the_same_demonstrations_compute_them_once() -> None:
    items = [[1, *SHOTS, *SHOTS, 100 + n % 50, 150 + n % 30, 200 + n // 50] for n in range(100)]
    counts = {}
    for prefix_bytes in (0, 1 << 30):
        batch = Batch(make_base(), prefix_bytes=prefix_bytes)
        for item in items:
            batch.ask(item, max_new_tokens=2)
        batch.run()
        counts[prefix_bytes] = batch.counts["prefill_tokens"]
    assert counts[0] >= sum(map(len, items))
    assert counts[0] >= 4 * counts[1 << 30]


def span(tokens: int) -> Span:
    return [torch.zeros(1, 1, tokens, 4)]  # 16 bytes a token


def test_no_adapter_finds_what_another_computed() -> None:
    store = PrefixStore(1 << 20)
    tokens = list(range(40))
    store.keep("finance@1", tokens, lambda start, end: span(end - start))
    assert len(store.find("finance@1", tokens)) == 2
    for other in (None, "finance@2", "law@1"):
        assert store.find(other, tokens) == []
    store.forget("finance@1")
    assert (store.find("finance@1", tokens), store.num_bytes) == ([], 0)


def test_one_token_is_always_left_to_compute() -> None:
    store = PrefixStore(1 << 20)
    tokens = list(range(2 * PAGE))
    store.keep(None, tokens, lambda start, end: span(end - start))
    assert len(store.find(None, tokens)) == 1
    assert len(store.find(None, [*tokens, 5])) == 2


def test_the_least_recently_used_ends_go_first() -> None:
    page_bytes = 16 * PAGE
    store = PrefixStore(4 * page_bytes)
    common = list(range(PAGE))
    first, second, third = ([*common, *range(start, start + PAGE), 0] for start in (100, 200, 300))
    for tokens in (first, second, third):
        store.keep(None, tokens, lambda start, end: span(end - start))
    assert store.num_bytes == 4 * page_bytes
    store.find(None, first)
    store.keep(None, [*common, *range(400, 400 + PAGE), 0], lambda start, end: span(end - start))
    assert [len(store.find(None, tokens)) for tokens in (first, second, third)] == [2, 1, 2]
    assert store.num_bytes <= store.budget


def test_nothing_is_kept_without_a_budget() -> None:
    store = PrefixStore(0)
    store.keep(None, list(range(40)), lambda start, end: span(end - start))
    assert (store.find(None, list(range(40))), store.num_bytes) == ([], 0)
