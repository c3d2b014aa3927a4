"""What the base is asked for an answer, and which answers are learned from."""

from __future__ import annotations

import pytest

from app.core.records import Answer, Candidate, Example, GenerationRequest, Origin, Rejection
from app.engine.fake import FakeEngine
from app.pipeline.prompts import response_prompt
from app.pipeline.responses import RESPONSES_PER_WAVE, judge_answer, request_answer, write_answers
from tests.pipeline.samples import ABOUT, candidate, recipe, seed, seeds

SEEDS = seeds(5, "tone", "names")


def asked(item: Candidate, **knobs: object) -> GenerationRequest:
    return request_answer(item, SEEDS, recipe=recipe(**knobs), **ABOUT)


def test_the_paper_shows_no_demonstration_and_is_greedy() -> None:
    request = asked(candidate())
    assert request.prompt == response_prompt(
        "finance", candidate().instruction, candidate().input, description=ABOUT["description"]
    )
    assert (request.temperature, request.adapter) == (0.0, None)
    assert request.stop == ("\n\n", "###", "\nInstruction:")


def test_shots_are_of_the_same_task_and_fixed_by_the_seed_number() -> None:
    prompts = [asked(candidate(number), response_shots=2).prompt for number in range(20)]
    assert prompts == [asked(candidate(number), response_shots=2).prompt for number in range(20)]
    assert all(prompt.count("Is the tone good or bad?") == 3 and "names" not in prompt for prompt in prompts)
    assert prompts != [asked(candidate(number), response_shots=2, seed=1).prompt for number in range(20)]


def test_more_shots_than_seeds_and_shots_for_a_new_task() -> None:
    assert asked(candidate(), response_shots=10).prompt.count("Response:") == 5 + 1
    assert asked(candidate(task=None), response_shots=10).prompt.count("Response:") == 10 + 1
    assert request_answer(candidate(), [], recipe=recipe(response_shots=3), **ABOUT).prompt.count("Response:") == 1


def test_shots_are_left_out_where_the_prompt_would_be_too_long() -> None:
    for fits, num_shown in ((lambda prompt: False, 0), (lambda prompt: len(prompt) < 10_000, 2)):
        request = request_answer(candidate(), SEEDS, recipe=recipe(response_shots=2), fits=fits, **ABOUT)
        assert request.prompt.count("Response:") == num_shown + 1


def test_an_answer_may_hold_what_its_tasks_answers_hold() -> None:
    """Answers of several paragraphs were cut after the first."""
    given = [seed(1, output="one\n\ntwo"), *seeds(2, "names")]
    request = request_answer(candidate(), given, recipe=recipe(), **ABOUT)
    assert request.stop == ("###", "\nInstruction:")
    other = request_answer(candidate(task="names"), given, recipe=recipe(), **ABOUT)
    assert other.stop == ("\n\n", "###", "\nInstruction:")


def test_waves_go_on_where_a_killed_job_stopped() -> None:
    items = [candidate(number) for number in range(2 * RESPONSES_PER_WAVE + 3)]

    def answers(start: int) -> list[list[Answer]]:
        return list(write_answers(items, SEEDS, recipe=recipe(), start=start, generator=FakeEngine(), **ABOUT))

    whole = answers(0)
    assert [len(wave) for wave in whole] == [RESPONSES_PER_WAVE, RESPONSES_PER_WAVE, 3]
    for done in range(4):
        assert answers(done * RESPONSES_PER_WAVE) == whole[done:]
    assert answers(len(items)) == []
    assert {answer.generator for wave in whole for answer in wave} == {"base"}


def judge(text: str, *, finish_reason: str = "stop", item: Candidate | None = None) -> Example | Rejection:
    return judge_answer(item or candidate(), Answer(text, finish_reason, 3, "base"))


def test_an_answer_becomes_an_example_that_can_be_traced() -> None:
    example = judge(" It grew.\r\nA lot. \n")
    assert example == Example(
        id=candidate().id,
        instruction=candidate().instruction,
        input=candidate().input,
        output="It grew.\nA lot.",
        task="tone",
        origin=Origin.GENERATED,
        seed_ids=("s1", "s2"),
        generator="base",
        reply=0,
        item=0,
    )


@pytest.mark.parametrize(
    ("text", "finish_reason", "reason"),
    [
        ("", "stop", "empty_response"),
        (" \n", "length", "empty_response"),
        ("It gre", "length", "truncated_response"),
        ("The firms are:", "stop", "unfinished_response"),
        ("new TEXT 0", "stop", "echoes_prompt"),
        ("Is the tone good or bad?", "stop", "echoes_prompt"),
    ],
)
def test_answers_that_teach_nothing(text: str, finish_reason: str, reason: str) -> None:
    assert judge(text, finish_reason=finish_reason) == Rejection(reason, 0, 0, text)
