"""Prompts and waves of replies: a function of seed number and index, whoever asks and from wherever it begins."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import Fault, StageFailed
from app.core.records import Completion, GenerationRequest, Reply, Seed
from app.engine.fake import FakeEngine
from app.pipeline.bench import ROWS, WAVE, Stage
from app.pipeline.holdout import Split
from app.pipeline.instructions import REJECTIONS, REPLIES, Shown, make_instructions, prompt_at, write_replies
from app.pipeline.prompts import anchored_prompt, list_prompt
from app.pipeline.turns import count_prompts
from tests.pipeline.samples import ABOUT, Recorder, recipe, seed, seeds
from tests.pipeline.workbench import Workbench

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


@pytest.mark.parametrize("style", STYLES)
def test_a_round_of_prompts_is_asked_so_often_before_the_next(style: str) -> None:
    """The same prompts as when each is asked once, whoever asks for which reply first; the tasks go on taking turns."""
    tasks = len({item.task for item in SEEDS})
    once = [at(index, prompt_style=style) for index in range(2 * tasks)]
    often = [at(index, prompt_style=style, replies_per_prompt=3) for index in reversed(range(6 * tasks))][::-1]
    assert [shown.index for shown in often] == list(range(6 * tasks))
    expected = [*once[:tasks] * 3, *once[tasks:] * 3]
    assert [replace(shown, index=0) for shown in often] == [replace(shown, index=0) for shown in expected]


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
def test_of_several_domains_a_prompt_shows_one_and_names_it(style: str) -> None:
    """They take turns, and so do the tasks of each."""
    law = [replace(item, domain="law", task=f"law/{item.task}") for item in SEEDS]
    both = [*law, *(replace(item, domain="sports") for item in SEEDS)]
    for index in range(8):
        shown = at(index, both, prompt_style=style)
        domain = ("law", "sports")[index % 2]
        assert {item.domain for item in shown.seeds} == {domain}
        assert f"the field of {domain}" in shown.prompt
        assert "finance" not in shown.prompt
        assert ABOUT["description"] not in shown.prompt
    if style == "anchored":
        tasks = [at(index, both, prompt_style=style).task for index in range(5)]
        assert tasks == ["law/names", "names", "law/tone", "tone", "law/names"]


def test_labels_take_turns_where_the_label_comes_first() -> None:
    """Of a task with a few labels; any other task is asked for as ever."""
    tone = [seed(n, output=label) for n, label in enumerate(["good", "bad", "none"] * 3)]
    open_ended = [seed(n, task="why", output=f"because of the {n}th reason that was given") for n in range(4)]
    labels = []
    for index in range(12):
        shown = at(index, [*tone, *open_ended], prompt_style="anchored", label_first=True)
        if shown.task == "why":
            assert shown == at(index, [*tone, *open_ended], prompt_style="anchored")
        else:
            [label] = {item.output for item in shown.seeds}
            assert f"the answer is: {label}." in shown.prompt
            labels.append(label)
    assert labels == ["bad", "good", "none"] * 2


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
    chosen = recipe(**{"max_prompts": 2 * WAVE + 5, **knobs})
    waves = write_replies(SEEDS, recipe=chosen, start=start, generator=engine or FakeEngine(), **ABOUT)
    return [wave.replies for wave in waves]


@pytest.mark.parametrize("style", STYLES)
def test_waves_go_on_where_a_killed_job_stopped(style: str) -> None:
    whole = replies(prompt_style=style)
    assert [len(wave) for wave in whole] == [WAVE, WAVE, 5]
    assert [reply.index for wave in whole for reply in wave] == list(range(2 * WAVE + 5))
    for done in range(4):
        assert replies(done * WAVE, prompt_style=style) == whole[done:]


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


@pytest.mark.parametrize("style", STYLES)
def test_the_same_prompt_asked_again_has_another_reply(style: str) -> None:
    """And each counts as a prompt."""
    whole = replies(prompt_style=style, replies_per_prompt=8)
    told = [reply for wave in whole for reply in wave]
    assert [len(wave) for wave in whole] == [WAVE, WAVE, 5]
    assert [reply.index for reply in told] == list(range(2 * WAVE + 5))
    by_prompt: dict[str, list[str]] = {}
    for reply in told:
        by_prompt.setdefault(reply.prompt, []).append(reply.text)
    assert len(by_prompt) == count_prompts(len(told), SEEDS, recipe(replies_per_prompt=8)) < len(told) / 6
    assert all(len(set(texts)) == len(texts) for texts in by_prompt.values())
    assert replies(2 * WAVE, prompt_style=style, replies_per_prompt=8) == whole[2:]


def test_a_prompt_asked_again_is_read_once() -> None:
    engine = FakeEngine()
    replies(engine=engine, replies_per_prompt=8)
    assert engine.stats()["prefill_tokens"] < engine.stats()["prompt_tokens"] / 7


def test_no_prompts_if_none_may_be_asked() -> None:
    assert replies(max_prompts=0) == []


class Slow(FakeEngine):
    """Says that every request waited one second and took another; writes its one word to one prompt in ``every``."""

    def __init__(self, every: int = 1) -> None:
        super().__init__()
        self._every, self._count = every, 0

    def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
        answers = []
        for answer in super().generate(requests, **options):
            self._count += 1
            text = answer.text if self._count % self._every == 0 else "?"
            answers.append(replace(answer, text=text, queue_seconds=1.0, seconds=1.0))
        return answers


def bench_at(folder: Path, *, engine: FakeEngine | None = None, **knobs: object) -> Workbench:
    stage = Stage("instructions", "instructions", (), make_instructions)
    split = Split(tuple(SEEDS), (), is_holdout=False)
    chosen = recipe(**{"prompt_style": "anchored", "num_examples": 500, "max_prompts": 3 * WAVE, **knobs})
    return Workbench(chosen, split, stage, folder, engine or Slow(), **ABOUT)


def files_of(bench: Workbench) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bench.folder.iterdir()}


def test_the_yield_is_told_after_every_wave(tmp_path: Path) -> None:
    bench = bench_at(tmp_path)
    make_instructions(bench)
    assert [each["prompts"] for each in bench.details] == [WAVE, 2 * WAVE, 3 * WAVE]
    last = bench.details[-1]
    assert last["accepted"] == len(bench.rows(ROWS))
    assert sum(last["rejected"].values()) == len(bench.rows(REJECTIONS)) == last["written"] - last["accepted"]
    assert last["tokens"] == sum(row["num_tokens"] for row in bench.rows(REPLIES))
    seconds = [each["seconds"] for each in bench.details]
    assert 0 < seconds[0] <= seconds[1] <= seconds[2]
    assert bench.told("instructions_judged")[1] == last


LONG = [seed(number, task="sum", input=f"Report {number}: {'the firm sold ships ' * 20}") for number in range(4)]


def test_nothing_is_written_for_tasks_whose_texts_would_be_cut_off(tmp_path: Path) -> None:
    """A fifth of all prompts asked for texts that the limit cut off, and brought one row of sixty."""
    bench = bench_at(tmp_path, engine=FakeEngine(), instruction_max_new_tokens=40)
    bench.split = Split((*SEEDS, *LONG), (), is_holdout=False)
    make_instructions(bench)
    assert {row["task"] for row in bench.rows(REPLIES)} == {"tone", "names"}
    message, data, is_warning = bench.told("texts_cut_off")
    assert "sum (" in message
    assert data == {"limit": 40, "tasks": ["sum"]}
    assert is_warning


def test_where_all_texts_would_be_cut_off_they_are_asked_for(tmp_path: Path) -> None:
    """The yield then says what is wrong; a job that wrote nothing would learn the seeds alone."""
    bench = bench_at(tmp_path, engine=FakeEngine(), instruction_max_new_tokens=40)
    bench.split = Split(tuple(LONG), (), is_holdout=False)
    make_instructions(bench)
    assert {row["task"] for row in bench.rows(REPLIES)} == {"sum"}
    assert bench.told("texts_cut_off")[2]


def test_seconds_are_in_no_file(tmp_path: Path) -> None:
    """Else a job that was killed and resumed would make another artifact."""
    one, other = bench_at(tmp_path / "one"), bench_at(tmp_path / "other", engine=FakeEngine())
    for bench in (one, other):
        make_instructions(bench)
    assert all(bench.details[-1]["seconds"] > 0 for bench in (one, other))
    assert files_of(one) == files_of(other)


@pytest.mark.parametrize("each", [1, 5])
@pytest.mark.parametrize("num_rows", [0, 1, WAVE, 2 * WAVE + 7])
def test_a_killed_stage_goes_on_from_the_last_whole_wave(tmp_path: Path, num_rows: int, each: int) -> None:
    """Also where a prompt's replies lie in two waves."""
    whole = bench_at(tmp_path / "whole", replies_per_prompt=each)
    killed = bench_at(tmp_path / "killed", engine=Recorder(), replies_per_prompt=each)
    make_instructions(whole)
    killed.append(REPLIES, whole.rows(REPLIES)[:num_rows])
    killed.append(ROWS, whole.rows(ROWS)[:3])
    make_instructions(killed)
    assert files_of(killed) == files_of(whole)
    assert isinstance(killed.engine, Recorder)
    assert len(killed.engine.waves) == 3 - num_rows // WAVE


def test_a_job_that_accepts_hardly_anything_fails_early_with_what_it_has(tmp_path: Path) -> None:
    """One item in sixteen is fit for use where a fifth is asked for: it ends at the window, not at max_prompts."""
    bench = bench_at(tmp_path, engine=Slow(every=16), min_yield=0.2, yield_window=WAVE + 1)
    with pytest.raises(StageFailed) as raised:
        make_instructions(bench)
    error = raised.value
    assert (error.stage, error.fault, error.param) == ("instructions", Fault.USER, "recipe.min_yield")
    assert len(bench.rows(REPLIES)) == 2 * WAVE
    kept = len(bench.rows(ROWS))
    assert 0 < kept <= 2 * WAVE // 16
    assert f"{kept} of {2 * WAVE} written items were accepted" in error.message
    assert f"Refused: too_short {2 * WAVE - 2 * WAVE // 16}" in error.message
    assert "'?' (too_short: at least 3 words)" in error.message
    _, data, _ = bench.told("yield_too_low")
    assert len(data["samples"]) == 3
    assert data["accepted"] == kept


@pytest.mark.parametrize("knobs", [{"min_yield": 0.0}, {"yield_window": 3 * WAVE + 1}, {"min_yield": 1 / 32}])
def test_a_low_yield_may_be_allowed(tmp_path: Path, knobs: dict[str, Any]) -> None:
    bench = bench_at(tmp_path, engine=Slow(every=16), **knobs)
    make_instructions(bench)
    assert len(bench.rows(REPLIES)) == 3 * WAVE
    assert bench.told("instructions_judged")[2]
