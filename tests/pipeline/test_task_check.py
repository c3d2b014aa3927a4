"""Which tasks the base answers well enough to write new rows for, judged by their own seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.core.records import Completion, GenerationRequest, Seed
from app.pipeline.bench import Stage
from app.pipeline.holdout import Split
from app.pipeline.instructions import make_instructions
from app.pipeline.rows import from_row
from app.pipeline.task_check import check_tasks
from app.pipeline.trust import TaskScore, score_tasks, trusted_seeds
from tests.pipeline.samples import Recorder, recipe, seed
from tests.pipeline.workbench import Workbench

TONE = [seed(number, output=label) for number, label in enumerate(("good", "bad", "good", "bad", "good"))]
NAMES = [seed(number, task="names", output=f"ship {number}") for number in range(5)]
CHECK = Stage("tasks", "tasks", (), check_tasks)


class Answering(Recorder):
    """Answers by what the last input of a prompt is."""

    def __init__(self, answers: dict[str, str]) -> None:
        super().__init__()
        self._answers = answers

    def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
        done = super().generate(requests, **options)
        return [replace(each, text=self._answer(request.prompt)) for each, request in zip(done, requests, strict=True)]

    def _answer(self, prompt: str) -> str:
        asked = prompt.rpartition("Instruction: ")[2].removesuffix("\nResponse:")
        instruction, _, text = asked.partition("\nInput: ")
        return self._answers[f"{instruction}|{text}"]


def says(*answers: tuple[Seed, str]) -> dict[str, str]:
    return {f"{item.instruction}|{item.input}": text for item, text in answers}


def checked(tmp_path: Path, engine: Answering, **knobs: Any) -> Workbench:
    split = Split((*TONE, *NAMES), (), is_holdout=False)
    made = recipe(prompt_style="anchored", task_check="leave_one_out", response_shots=3, **knobs)
    bench = Workbench(made, split, CHECK, tmp_path / "tasks", engine)
    check_tasks(bench)
    return bench


def engine_of(tone: str = "good", names: str = "ship {}") -> Answering:
    numbered = ((item, names.format(number)) for number, item in enumerate(NAMES))
    return Answering(says(*((item, tone) for item in TONE), *numbered))


def test_one_answer_to_everything_is_no_skill() -> None:
    [tone] = score_tasks(TONE, ["good"] * 5, least_f1=20)
    assert (tone.f1, tone.constant_f1, tone.is_trusted) == (60, 60, False)
    [better] = score_tasks(TONE, ["good", "bad", "good", "bad", "bad"], least_f1=20)
    assert (better.f1, better.constant_f1, better.is_trusted) == (80, 60, True)


def test_where_no_answer_is_shared_anything_right_is_skill() -> None:
    [some] = score_tasks(NAMES, ["ship 0", "boat", "boat", "boat", "boat"], least_f1=20)
    assert (some.f1, some.constant_f1, some.is_trusted) == (20, 0, True)
    [few] = score_tasks(NAMES, ["ship 0", "boat", "boat", "boat", "boat"], least_f1=20.1)
    assert not few.is_trusted
    [nothing] = score_tasks(NAMES, ["boat"] * 5, least_f1=20)
    assert not nothing.is_trusted


def test_only_answers_that_could_be_learned_from_count_on_both_sides() -> None:
    """An answer that is refused harms nobody."""
    [tone] = score_tasks(TONE, [None, "bad", None, "bad", "good"], least_f1=20)
    assert (tone.num_seeds, tone.num_usable, tone.f1) == (5, 3, 100)
    assert tone.constant_f1 == pytest.approx(200 / 3)
    [refused] = score_tasks(TONE, [None] * 5, least_f1=20)
    assert (refused.f1, refused.is_trusted) == (0, False)


def test_a_further_right_answer_of_a_seed_is_right() -> None:
    [score] = score_tasks([replace(NAMES[0], references=("vessel",))], ["vessel"], least_f1=20)
    assert score.f1 == 100


def test_a_task_of_few_seeds_is_not_judged() -> None:
    for seeds, is_trusted in ((TONE[:3], True), (TONE[:4], False)):
        [score] = score_tasks(seeds, ["bad"] * len(seeds), least_f1=20)
        assert score.is_trusted is is_trusted


def test_tasks_of_one_name_in_two_domains_are_two() -> None:
    law = [replace(item, domain="law") for item in NAMES]
    answers = [*["boat"] * 5, *(item.output for item in law)]
    scores = list(score_tasks([*NAMES, *law], answers, least_f1=20))
    assert [(score.domain, score.is_trusted) for score in scores] == [("", False), ("law", True)]


def test_each_seed_is_asked_without_being_shown(tmp_path: Path) -> None:
    engine = engine_of()
    checked(tmp_path, engine, response_draws=2)
    asked = [request for wave in engine.waves for request in wave]
    assert len(asked) == 2 * len((*TONE, *NAMES))
    assert {request.adapter for request in asked} == {None}
    for item in (*TONE, *NAMES):
        own = [request.prompt for request in asked if request.prompt.endswith(f"{item.input}\nResponse:")]
        assert own
        assert all(prompt.count(f"{item.input}\n") == 1 or item.output not in prompt for prompt in own)


def test_seeds_are_shown_the_same_before_them_as_far_as_can_be(tmp_path: Path) -> None:
    """What prompts begin alike with is read once."""
    engine = engine_of()
    checked(tmp_path, engine, response_draws=2)
    asked = [request.prompt for wave in engine.waves for request in wave]
    shown = {prompt.rpartition("Instruction:")[0] for prompt in asked if "names" in prompt}
    assert len(shown) == 2 * 4  # three of five are shown: the other two before the same ones


def test_progress_is_told_as_the_answers_come(tmp_path: Path) -> None:
    """A wave of several draws took minutes at 0 of 40."""
    bench = checked(tmp_path, engine_of(), response_draws=2)
    assert bench.progressed == sorted(bench.progressed)
    assert bench.progressed[0] == (0, 10)
    assert len(set(bench.progressed)) == 11


def test_what_was_found_is_told_and_kept(tmp_path: Path) -> None:
    bench = checked(tmp_path, engine_of())
    scores = [from_row(TaskScore, row) for row in bench.rows()]
    assert [(score.task, score.f1, score.is_trusted) for score in scores] == [("tone", 60, False), ("names", 100, True)]
    message, data, is_warning = bench.told("tasks_checked")
    assert "1 of 2 tasks" in message
    assert "tone (60.0, one answer to all 60.0)" in message
    assert is_warning
    assert [row["task"] for row in data["tasks"]] == ["tone", "names"]


def test_nothing_is_written_for_a_task_that_is_not_trusted(tmp_path: Path) -> None:
    found = checked(tmp_path, engine_of())
    bench = replace(found, stage=Stage("instructions", "instructions", ("tasks",), make_instructions))
    bench = replace(bench, folder=tmp_path / "instructions", engine=Recorder(), events=[])
    bench.recipe = found.recipe.model_copy(update={"num_examples": 20, "max_prompts": 40, "min_yield": 0.0})
    bench.products["tasks", "rows.jsonl"] = found.rows()
    make_instructions(bench)
    assert {item.task for item in trusted_seeds(bench)} == {"names"}
    assert {row["task"] for row in bench.rows("replies.jsonl")} == {"names"}


def test_where_no_task_is_trusted_nothing_is_asked(tmp_path: Path) -> None:
    found = checked(tmp_path, engine_of(names="boat"))
    engine = Recorder()
    bench = replace(found, stage=Stage("instructions", "instructions", ("tasks",), make_instructions))
    bench = replace(bench, folder=tmp_path / "instructions", engine=engine, events=[])
    bench.products["tasks", "rows.jsonl"] = found.rows()
    make_instructions(bench)
    assert engine.waves == []
    assert bench.rows() == []
    assert bench.told("instructions_judged")[2]  # it warns
