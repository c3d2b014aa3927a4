"""Prompts and waves of replies: a function of seed number and index, whoever asks and from wherever it begins."""

from __future__ import annotations

import random

import pytest

from app.core.records import Reply, Seed
from app.engine.fake import FakeEngine
from app.pipeline.instructions import PROMPTS_PER_WAVE, Shown, prompt_at, write_replies
from app.pipeline.prompts import anchored_prompt, list_prompt
from tests.pipeline.samples import ABOUT, Recorder, recipe, seed, seeds

SEEDS = seeds(5, "tone", "names")
STYLES = ["list", "anchored"]


def at(index: int, given: list[Seed] | None = None, **knobs: object) -> Shown:
    return prompt_at(index, given or SEEDS, recipe=recipe(**knobs), **ABOUT)


@pytest.mark.parametrize("style", STYLES)
def test_a_prompt_is_a_function_of_seed_number_and_index(style: str) -> None:
    """Whatever was asked before, and however the process draws otherwise."""
    first = [at(index, prompt_style=style) for index in range(20)]
    random.seed(99)
    assert [at(index, prompt_style=style) for index in reversed(range(20))] == first[::-1]
    assert len({shown.prompt for shown in first}) > 15
    assert [at(index, prompt_style=style, seed=1) for index in range(20)] != first


def test_a_list_prompt_shows_random_seeds_of_all() -> None:
    shown = at(3)
    assert shown.prompt == list_prompt("finance", shown.seeds, num_tasks=20, description=ABOUT["description"])
    assert (len(set(shown.seeds)), shown.task, shown.stop) == (3, None, ("\n21. ",))
    assert {item.id for index in range(50) for item in at(index).seeds} == {item.id for item in SEEDS}


def test_tasks_take_turns_in_anchored_prompts() -> None:
    for index in range(6):
        shown = at(index, prompt_style="anchored")
        assert shown.prompt == anchored_prompt("finance", shown.seeds, description=ABOUT["description"])
        assert shown.task == ("names", "tone")[index % 2]
        assert {item.task for item in shown.seeds} == {shown.task}
        assert shown.stop == ("\nText 5:", "\n\n")


@pytest.mark.parametrize("style", STYLES)
def test_fewer_seeds_than_a_prompt_shows(style: str) -> None:
    one = [seed(1)]
    assert at(0, one, prompt_style=style).seeds == (one[0],)
    assert len(at(0, seeds(2), prompt_style=style, seeds_per_prompt=10).seeds) == 2


def test_blank_lines_end_a_text_unless_the_seeds_have_some() -> None:
    """Else every new text would be the first paragraph of one."""
    for blank in ("\n\n", "\n \n", "\r\n\r\n"):
        assert at(0, [seed(input=f"one{blank}two")], prompt_style="anchored").stop == ("\nText 3:",)
    assert at(0, [seed(input="Text 2:\n\ntwo")], prompt_style="anchored").stop == ("\nNew Text 3:",)


def test_seeds_without_input_are_no_anchor_where_others_have_one() -> None:
    mixed = [seed(1, input=""), seed(2), seed(3, input=""), seed(4)]
    assert {item.input for index in range(20) for item in at(index, mixed, prompt_style="anchored").seeds} == {
        mixed[1].input,
        mixed[3].input,
    }


@pytest.mark.parametrize("style", STYLES)
def test_a_prompt_shows_what_fits_the_base(style: str) -> None:
    """A few long seeds in one prompt of thousands would have ended the whole job."""
    whole = at(0, prompt_style=style)
    limit = len(whole.prompt) - 1
    short = prompt_at(0, SEEDS, recipe=recipe(prompt_style=style), fits=lambda prompt: len(prompt) <= limit, **ABOUT)
    assert short.seeds == whole.seeds[:2]
    assert len(short.prompt) <= limit
    assert short.stop == (("\nText 4:", "\n\n") if style == "anchored" else whole.stop)


def replies(start: int = 0, *, engine: FakeEngine | None = None, **knobs: object) -> list[list[Reply]]:
    chosen = recipe(**{"max_prompts": 2 * PROMPTS_PER_WAVE + 5, **knobs})
    waves = write_replies(SEEDS, recipe=chosen, start=start, generator=engine or FakeEngine(), **ABOUT)
    return list(waves)


@pytest.mark.parametrize("style", STYLES)
def test_waves_go_on_where_a_killed_job_stopped(style: str) -> None:
    whole = replies(prompt_style=style)
    assert [len(wave) for wave in whole] == [PROMPTS_PER_WAVE, PROMPTS_PER_WAVE, 5]
    assert [reply.index for wave in whole for reply in wave] == list(range(2 * PROMPTS_PER_WAVE + 5))
    for done in range(4):
        assert replies(done * PROMPTS_PER_WAVE, prompt_style=style) == whole[done:]


def test_replies_name_their_seeds() -> None:
    for reply in replies(prompt_style="anchored")[0]:
        shown = at(reply.index, prompt_style="anchored")
        assert (reply.seed_ids, reply.task) == (tuple(item.id for item in shown.seeds), shown.task)


def test_the_paper_samples_at_temperature_one() -> None:
    """App. C: top-p 0.98, temperature 1.0; each prompt has random numbers of its own."""
    engine = Recorder()
    replies(engine=engine)
    asked = [request for wave in engine.waves for request in wave]
    assert {(request.temperature, request.top_p, request.adapter) for request in asked} == {(1.0, 0.98, None)}
    assert len({request.seed for request in asked}) == len(asked)


def test_no_prompts_if_none_may_be_asked() -> None:
    assert replies(max_prompts=0) == []
