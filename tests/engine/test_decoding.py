"""What ends a row and what its text is; greedy tokens themselves are compared in ``test_families``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from app.engine.base import LoadedBase
from app.engine.decoding import Decoder, Row, make_sampler
from tests.engine.tiny import as_base, make_bank, make_base, make_model, make_tokenizer

PROMPT = "the revenue of the firm "


@pytest.fixture(scope="module")
def base() -> LoadedBase:
    """A base that never ends by itself."""
    return replace(make_base(), eos_ids=frozenset())


def row(base: LoadedBase, prompt: str = PROMPT, **changes: object) -> Row:
    settings = {"slot": 0, "sampler": make_sampler(0.0, 1.0, 0), "max_new_tokens": 24, "stop": (), **changes}
    return Row(base.encode(prompt), **settings)  # type: ignore[arg-type]


def run(base: LoadedBase, *rows: Row) -> list[Row]:
    """Decode without slots; the rows in the order in which they ended."""
    ended: list[Row] = []
    bank = make_bank(base, num_slots=1)
    with bank.removed():
        Decoder(base, bank.segments).run(rows, on_row_end=ended.append)
    return ended


def test_length_ends_a_row_and_is_told(base: LoadedBase) -> None:
    short, long = row(base, max_new_tokens=3), row(base, max_new_tokens=9)
    assert run(base, long, short) == [short, long]
    assert [(len(r.token_ids), r.finish_reason) for r in (short, long)] == [(3, "length"), (9, "length")]
    assert long.token_ids[:3] == short.token_ids


@pytest.mark.parametrize(("start", "length"), [(4, 1), (4, 5), (7, 9), (0, 2)])
def test_a_stop_text_cuts_wherever_tokens_end(base: LoadedBase, start: int, length: int) -> None:
    """The stop text begins and ends within tokens, or spans several."""
    (whole,) = run(base, row(base))
    # the model's bytes are random: take characters that were really said, whole ones only
    stop = whole.text[start : start + length]
    (cut,) = run(base, row(base, stop=("never said", stop)))
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert len(cut.token_ids) < len(whole.token_ids)


def test_the_earliest_of_several_stops_cuts(base: LoadedBase) -> None:
    (whole,) = run(base, row(base))
    stops = (whole.text[6:9], whole.text[3:5])
    (cut,) = run(base, row(base, stop=stops))
    assert cut.text == whole.text[: min(whole.text.index(stop) for stop in stops)]


def test_a_stop_of_characters_that_take_several_tokens_is_met() -> None:
    """A bug: only as many tokens as the stop has characters (and four) were looked at, but an emoji takes four."""
    tokenizer = make_tokenizer()
    said = "🚀🌍🎉"  # twelve bytes, a token each
    base = as_base(_parrot(tokenizer(said)["input_ids"]), tokenizer)
    (ended,) = run(base, row(base, prompt="x", stop=(said,), max_new_tokens=20))
    assert (ended.text, ended.finish_reason, len(ended.token_ids)) == ("", "stop", 12)


def test_end_of_sequence_is_not_part_of_the_answer(base: LoadedBase) -> None:
    (whole,) = run(base, row(base))
    ending = replace(base, eos_ids=frozenset({whole.token_ids[6]}))
    (ended,) = run(ending, row(ending))
    first = whole.token_ids.index(whole.token_ids[6])
    assert (ended.token_ids, ended.finish_reason) == (whole.token_ids[:first], "stop")
    assert ended.text == base.tokenizer.decode(whole.token_ids[:first])


def test_a_cancelled_row_leaves_and_its_neighbour_stays(base: LoadedBase) -> None:
    seen = 0

    def is_cancelled() -> bool:
        nonlocal seen
        seen += 1
        return seen > 4

    (alone,) = run(base, row(base))
    cancelled, neighbour = row(base, is_cancelled=is_cancelled), row(base)
    assert run(base, cancelled, neighbour) == [cancelled, neighbour]
    assert len(cancelled.token_ids) == 5
    assert neighbour.token_ids == alone.token_ids


def test_many_rows_that_end_one_by_one_say_what_each_says_alone(base: LoadedBase) -> None:
    prompts = [PROMPT[: 3 + index] for index in range(12)]
    alone = [run(base, row(base, prompt, max_new_tokens=2 + index))[0] for index, prompt in enumerate(prompts)]
    together = [row(base, prompt, max_new_tokens=2 + index) for index, prompt in enumerate(prompts)]
    run(base, *together)
    assert [r.token_ids for r in together] == [r.token_ids for r in alone]


def test_sampled_text_depends_on_its_own_seed_only(base: LoadedBase) -> None:
    def sampled(seed: int) -> Row:
        return row(base, sampler=make_sampler(1.0, 0.95, seed))

    (alone,) = run(base, sampled(7))
    neighbours = [sampled(seed) for seed in (1, 2, 3)]
    again = sampled(7)
    run(base, neighbours[0], again, row(base, max_new_tokens=2), *neighbours[1:])
    assert again.token_ids == alone.token_ids
    assert len({tuple(r.token_ids) for r in (again, *neighbours)}) == 4


def test_a_token_that_the_tokenizer_does_not_know_says_nothing() -> None:
    """Some models have more embeddings than their tokenizer has tokens."""
    tokenizer = make_tokenizer()
    model = make_model("llama")
    model.resize_token_embeddings(320, mean_resizing=False)
    model.lm_head.weight[:300] = 0.0
    base = as_base(model, tokenizer)
    (ended,) = run(base, row(base, max_new_tokens=4))
    assert min(ended.token_ids) >= 300
    assert (ended.text, ended.finish_reason) == ("", "length")


def test_numbers_that_are_none_end_the_row_as_an_error(base: LoadedBase) -> None:
    """A bug: sampling from not-a-number never accepted a token and hung the thread that owns the model."""
    model = make_model("llama")
    model.model.layers[1].mlp.down_proj.weight[:] = torch.nan
    broken = as_base(model, make_tokenizer())
    for temperature in (0.0, 1.0):
        (ended,) = run(broken, row(broken, sampler=make_sampler(temperature, 0.9, 0)))
        assert ended.finish_reason == "error"


def _parrot(ids: list[int]) -> Any:
    """A model that says ``ids`` in a circle after a prompt of one token: position p's next token is ids[p]."""
    model = make_model("gpt2")
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())  # no longer tied to the embeddings
    for name, parameter in model.requires_grad_(False).named_parameters():
        if "ln_f" not in name:
            parameter.zero_()
    # with all layers zero, the last hidden state is the position's embedding, normalised
    for position in range(len(ids) * 2):
        model.transformer.wpe.weight[position, position % len(ids)] = 1.0
    for place, token in enumerate(ids):
        model.lm_head.weight[token, place] = 10.0
    return model
