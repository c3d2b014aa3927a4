"""What ends a sequence and what its text is; greedy tokens themselves are compared in ``test_families``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from app.core.errors import DeadlineExceeded, SelfspecError
from app.core.records import Piece
from app.engine.base import LoadedBase
from app.engine.sequences import Sequence
from tests.engine.batches import Batch
from tests.engine.tiny import as_base, make_base, make_model, make_tokenizer

PROMPT = "the revenue of the firm "


@pytest.fixture(scope="module")
def base() -> LoadedBase:
    """A base that never ends by itself."""
    return replace(make_base(), eos_ids=frozenset())


@pytest.fixture
def batch(base: LoadedBase) -> Batch:
    return Batch(as_base(base.model, base.tokenizer) if base.eos_ids else replace(base, model=make_model("llama")))


def text_of(sequence: Sequence) -> str:
    return sequence.future.result(0).text


def test_length_ends_an_answer_and_is_told(batch: Batch) -> None:
    long, short = batch.ask(PROMPT, max_new_tokens=9), batch.ask(PROMPT, max_new_tokens=3)
    batch.run()
    assert [(len(s.token_ids), s.finish_reason) for s in (short, long)] == [(3, "length"), (9, "length")]
    assert long.token_ids[:3] == short.token_ids


@pytest.mark.parametrize(("start", "length"), [(4, 1), (4, 5), (7, 9), (0, 2)])
def test_a_stop_text_cuts_wherever_tokens_end(batch: Batch, start: int, length: int) -> None:
    """The stop text begins and ends within tokens, or spans several."""
    whole = batch.say(PROMPT, max_new_tokens=24)
    # the model's bytes are random: take characters that were really said, whole ones only
    stop = text_of(whole)[start : start + length]
    cut = batch.say(PROMPT, max_new_tokens=24, stop=("never said", stop))
    assert text_of(cut) == text_of(whole)[: text_of(whole).index(stop)]
    assert cut.finish_reason == "stop"
    assert len(cut.token_ids) < len(whole.token_ids)


def test_the_earliest_of_several_stops_cuts(batch: Batch) -> None:
    whole = text_of(batch.say(PROMPT, max_new_tokens=24))
    stops = (whole[6:9], whole[3:5])
    cut = batch.say(PROMPT, max_new_tokens=24, stop=stops)
    assert text_of(cut) == whole[: min(whole.index(stop) for stop in stops)]


def test_a_stop_of_characters_that_take_several_tokens_is_met() -> None:
    """A bug: only as many tokens as the stop has characters (and four) were looked at, but an emoji takes four."""
    tokenizer = make_tokenizer()
    said = "🚀🌍🎉"  # twelve bytes, a token each
    base = as_base(_parrot(tokenizer(said)["input_ids"]), tokenizer)
    ended = Batch(base).say("x", stop=(said,), max_new_tokens=20)
    assert (text_of(ended), ended.finish_reason, len(ended.token_ids)) == ("", "stop", 12)


def test_end_of_sequence_is_not_part_of_the_answer(base: LoadedBase, batch: Batch) -> None:
    whole = batch.say(PROMPT, max_new_tokens=24)
    ending = Batch(replace(batch.base, eos_ids=frozenset({whole.token_ids[6]})), bank=batch.bank)
    ended = ending.say(PROMPT, max_new_tokens=24)
    first = whole.token_ids.index(whole.token_ids[6])
    assert (ended.token_ids, ended.finish_reason) == (whole.token_ids[:first], "stop")
    assert text_of(ended) == base.tokenizer.decode(whole.token_ids[:first])
    on = ending.say(PROMPT, max_new_tokens=24, ignore_end=True)
    assert on.token_ids == whole.token_ids


def test_the_pieces_are_the_answer(batch: Batch) -> None:
    pieces: list[Piece] = []
    sequence = batch.ask(PROMPT, max_new_tokens=24, stop=("never said",))
    sequence.on_piece = pieces.append
    batch.run()
    assert "".join(piece.text for piece in pieces) == text_of(sequence) == text_of(batch.say(PROMPT, max_new_tokens=24))
    assert sum(piece.num_tokens for piece in pieces) <= 24
    assert len(pieces) > 1


def test_a_listener_that_fails_costs_its_own_request_only_its_pieces(batch: Batch) -> None:
    def fail(piece: Piece) -> None:
        raise OSError("gone")

    sequence, other = batch.ask(PROMPT), batch.ask(PROMPT)
    sequence.on_piece = fail
    batch.run()
    assert text_of(sequence) == text_of(other) != ""


def test_a_caller_who_leaves_frees_its_row_at_the_next_step(batch: Batch) -> None:
    alone = batch.say(PROMPT)
    gone, neighbour = batch.ask(PROMPT, max_new_tokens=60), batch.ask(PROMPT)
    for _ in range(3):
        batch.batcher.step()
    assert batch.batcher.state(num_slots=3).running == 2
    gone.future.cancel()
    batch.batcher.step()
    assert batch.batcher.state(num_slots=3).running == 1
    batch.run()
    assert neighbour.token_ids == alone.token_ids
    assert batch.counts["cancelled"] == 1


def test_time_that_runs_out_ends_an_answer_where_it_is(batch: Batch) -> None:
    late, waiting = batch.ask(PROMPT, max_new_tokens=60, timeout_seconds=100.0), batch.ask(PROMPT, timeout_seconds=0.0)
    for _ in range(3):
        batch.batcher.step()
    late.submitted_at -= 200.0
    batch.run()
    assert late.future.result(0).finish_reason == "timeout"
    assert 0 < len(late.token_ids) < 60
    with pytest.raises(DeadlineExceeded):
        waiting.future.result(0)
    assert batch.counts["timeouts"] == 2


def test_many_that_end_one_by_one_say_what_each_says_alone(batch: Batch) -> None:
    prompts = [PROMPT[: 3 + index] for index in range(12)]
    alone = [batch.say(prompt, max_new_tokens=2 + index) for index, prompt in enumerate(prompts)]
    together = [batch.ask(prompt, max_new_tokens=2 + index) for index, prompt in enumerate(prompts)]
    batch.run()
    assert [s.token_ids for s in together] == [s.token_ids for s in alone]


def test_long_and_short_ones_run_side_by_side(base: LoadedBase) -> None:
    """Classes of length, a prompt computed in chunks, and rows that outgrow their rectangle."""
    wide = as_base(make_model("llama", max_position_embeddings=4096).double(), base.tokenizer)  # no near ties
    wide = replace(wide, eos_ids=frozenset(), info=replace(wide.info, context_tokens=4096))
    batch = Batch(wide, prefill_tokens=100, prefix_bytes=0)
    asked = [("the firm " * 120, 30), (PROMPT, 500), ("the margin " * 4, 700), (PROMPT, 20)]
    alone = [batch.say(prompt, max_new_tokens=most).token_ids for prompt, most in asked]
    together = [batch.ask(prompt, max_new_tokens=most) for prompt, most in asked]
    batch.run()
    assert [s.token_ids for s in together] == alone
    assert [len(ids) for ids in alone] == [most for _, most in asked]


def test_prompts_of_any_length_get_their_first_token_in_the_step_that_has_room_for_them(base: LoadedBase) -> None:
    """A bug: of a burst of unlike prompts one group was computed a step, and all others stood before an empty batch."""
    lengths = [3, 60, 4, 30, 3]
    prompts = [[1, *range(40 + 20 * row, 40 + 20 * row + length)] for row, length in enumerate(lengths)]
    batch = Batch(base, prefill_tokens=sum(lengths) + len(lengths), prefix_bytes=0)
    asked = [batch.ask(prompt, max_new_tokens=9) for prompt in prompts]
    batch.batcher.step()
    assert [len(sequence.token_ids) for sequence in asked] == [2] * len(asked)  # the first, and one of the step
    assert batch.counts["prefill_tokens"] < 1.3 * sum(map(len, prompts))
    batch.run()
    assert [s.token_ids for s in asked] == [batch.say(prompt, max_new_tokens=9).token_ids for prompt in prompts]


def test_padding_that_costs_nothing_is_computed(base: LoadedBase) -> None:
    """On a GPU a short pass takes as long as a shorter one."""
    prompts = [[1, *range(40, 40 + length)] for length in (3, 60, 30)]
    batch = Batch(base, prefill_tokens=500, prefix_bytes=0, spare_tokens=400)
    for prompt in prompts:
        batch.ask(prompt, max_new_tokens=4)
    batch.run()
    assert batch.counts["prefill_tokens"] == 3 * 61, "one pass, as wide as the longest"


def test_a_cache_that_is_full_is_waited_for(base: LoadedBase) -> None:
    batch = Batch(replace(base, model=make_model("llama")), cache_bytes=1)
    small = batch.ask(PROMPT)
    need = batch.batcher._bands.cost(small)
    batch.batcher._bands.budget = 2 * need
    more = [batch.ask(PROMPT) for _ in range(4)]
    most = 0
    while batch.batcher.has_work:
        batch.batcher.step()
        state = batch.batcher.state(num_slots=3)
        assert state.cache_bytes <= state.cache_budget
        most = max(most, state.running)
    assert most == 2
    assert all(s.token_ids == small.token_ids for s in more)


def test_an_answer_longer_than_was_expected_waits_for_cache_and_goes_on(base: LoadedBase) -> None:
    wide = as_base(make_model("llama", max_position_embeddings=4096).double(), base.tokenizer)  # no near ties
    wide = replace(wide, eos_ids=frozenset(), info=replace(wide.info, context_tokens=4096))
    batch = Batch(wide)
    prompts = ["the firm " * 90, "the margin " * 80]
    alone = [batch.say(prompt, max_new_tokens=600).token_ids for prompt in prompts]
    batch.batcher._bands.budget = batch.batcher._bands._bytes(2048) + batch.batcher._bands._bytes(512)
    together = [batch.ask(prompt, max_new_tokens=600) for prompt in prompts]
    batch.run()
    assert [s.token_ids for s in together] == alone
    assert batch.counts["preempted"] >= 1


def test_sampled_text_depends_on_its_own_seed_only(batch: Batch) -> None:
    def ask(seed: int) -> Sequence:
        return batch.ask(PROMPT, temperature=1.0, top_p=0.95, seed=seed, max_new_tokens=24)

    alone = ask(7)
    batch.run()
    neighbours, again = [ask(seed) for seed in (1, 2, 3)], ask(7)
    batch.ask(PROMPT, max_new_tokens=2)
    batch.run()
    assert again.token_ids == alone.token_ids
    assert len({tuple(s.token_ids) for s in (again, *neighbours)}) == 4


def test_a_token_that_the_tokenizer_does_not_know_says_nothing() -> None:
    """Some models have more embeddings than their tokenizer has tokens."""
    model = make_model("llama")
    model.resize_token_embeddings(320, mean_resizing=False)
    model.lm_head.weight[:300] = 0.0
    ended = Batch(as_base(model, make_tokenizer())).say(PROMPT, max_new_tokens=4)
    assert min(ended.token_ids) >= 300
    assert (text_of(ended), ended.finish_reason) == ("", "length")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_numbers_that_are_none_end_their_own_request_and_leave_nothing(temperature: float) -> None:
    """Bugs: sampling from not-a-number hung the thread that owns the model; and a masked NaN is still one."""
    tokenizer = make_tokenizer()
    model = make_model("llama")
    (token,) = tokenizer("~")["input_ids"]
    sound = Batch(as_base(make_model("llama"), tokenizer)).say(PROMPT)
    model.model.embed_tokens.weight[token] = torch.nan
    batch = Batch(as_base(model, tokenizer), max_batch=2)
    bad = [batch.ask("a ~ b", temperature=temperature) for _ in range(2)]
    neighbours = [batch.ask(PROMPT) for _ in range(3)]
    batch.run()
    assert all(s.token_ids == sound.token_ids for s in neighbours)
    for sequence in bad:
        with pytest.raises(SelfspecError, match="the base computed no numbers"):
            sequence.future.result(0)


def test_a_step_that_raises_ends_those_in_it_and_nobody_else(batch: Batch) -> None:
    alone = batch.say(PROMPT)
    running, waiting = [batch.ask(PROMPT) for _ in range(2)], []
    batch.batcher.step()
    head = batch.base.model.get_output_embeddings()
    broken = head.register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
    waiting.append(batch.ask(PROMPT))
    batch.batcher.step()
    broken.remove()
    waiting.append(batch.ask(PROMPT))
    batch.run()
    for sequence in (*running, waiting[0]):
        with pytest.raises(RuntimeError, match="out of memory"):
            sequence.future.result(0)
    assert waiting[1].token_ids == alone.token_ids
    state = batch.batcher.state(num_slots=3)
    assert (state.running, state.waiting, state.cache_bytes) == (0, 0, 0)


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
