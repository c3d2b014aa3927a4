"""What the base is asked for an answer, and which answers are learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest

from app.core.records import Answer, Candidate, Completion, Example, GenerationRequest, Origin, Rejection
from app.engine.fake import FakeEngine
from app.pipeline.answering import draw_answers, judge_answer, request_answers
from app.pipeline.merging import Merger
from app.pipeline.prompts import response_prompt
from app.pipeline.template import ALPACA
from app.pipeline.turns import count_prompts, prompt_of
from app.pipeline.validity import Rules
from tests.pipeline.samples import ABOUT, Recorder, candidate, recipe, seed, seeds

SEEDS = seeds(5, "tone", "names")


def asked(item: Candidate, **knobs: object) -> GenerationRequest:
    [request] = request_answers(item, seeds=SEEDS, recipe=recipe(**knobs), **ABOUT)
    return request


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


def test_items_of_one_prompt_are_shown_the_same_before_their_own() -> None:
    """What they begin alike with is then read once; another prompt's items are shown others."""
    knobs: dict[str, object] = {"response_shots": 2, "replies_per_prompt": 4}
    requests = [asked(candidate(number), **knobs) for number in range(40)]
    before = [request.prompt.removesuffix(f"{candidate(n).input}\nResponse:") for n, request in enumerate(requests)]
    number = [prompt_of(n, SEEDS, recipe(**knobs)) for n in range(40)]
    assert all((before[n] == before[m]) or number[n] != number[m] for n in range(40) for m in range(40))
    assert 5 < len(set(before)) <= count_prompts(40, SEEDS, recipe(**knobs))
    assert len({request.seed for request in requests}) == 40


def test_more_shots_than_seeds_and_shots_for_a_new_task() -> None:
    assert asked(candidate(), response_shots=10).prompt.count("Response:") == 5 + 1
    assert asked(candidate(task=None), response_shots=10).prompt.count("Response:") == 10 + 1
    [request] = request_answers(candidate(), seeds=[], recipe=recipe(response_shots=3), **ABOUT)
    assert request.prompt.count("Response:") == 1


def test_shots_are_left_out_where_the_prompt_would_be_too_long() -> None:
    for fits, num_shown in ((lambda prompt: False, 0), (lambda prompt: len(prompt) < 10_000, 2)):
        [request] = request_answers(candidate(), seeds=SEEDS, recipe=recipe(response_shots=2), fits=fits, **ABOUT)
        assert request.prompt.count("Response:") == num_shown + 1


def test_an_answer_may_hold_what_its_tasks_answers_hold() -> None:
    """Answers of several paragraphs were cut after the first."""
    given = [seed(1, output="one\n\ntwo"), *seeds(2, "names")]
    [request] = request_answers(candidate(), seeds=given, recipe=recipe(), **ABOUT)
    assert request.stop == ("###", "\nInstruction:")
    [other] = request_answers(candidate(task="names"), seeds=given, recipe=recipe(), **ABOUT)
    assert other.stop == ("\n\n", "###", "\nInstruction:")


def test_an_adapter_is_asked_through_the_template_it_learned() -> None:
    [request] = request_answers(candidate(), seeds=SEEDS, recipe=recipe(response_shots=1), writers=["a1"], **ABOUT)
    assert request.adapter == "a1"
    assert request.prompt.endswith(ALPACA.render(candidate().instruction, candidate().input))
    assert request.prompt.count("### Response:") == 2


def test_adapters_answer_beside_the_base() -> None:
    """It is shown seeds and gives one answer behind each draw of them; they have learned these, and give several."""
    knobs = recipe(responders=2, responders_join=True, response_shots=2, response_draws=3, response_samples=4)
    requests = request_answers(candidate(), seeds=SEEDS, recipe=knobs, writers=["a1", "a2"], **ABOUT)
    assert [request.adapter for request in requests] == [None] * 3 + ["a1"] * 4 + ["a2"] * 4
    assert all(request.prompt.count("Response:") == 3 for request in requests[:3])
    assert {request.prompt for request in requests[3:]} == {ALPACA.render(candidate().instruction, candidate().input)}
    assert [request.temperature for request in requests[3:7]] == [0.0, 0.7, 0.7, 0.7]
    assert len({(request.adapter, request.seed) for request in requests}) == len(requests) == knobs.count_answers(2)
    alone = request_answers(candidate(), seeds=SEEDS, recipe=knobs, **ABOUT)  # before there are adapters
    assert alone == requests[:3]


def test_a_task_of_one_of_several_domains_is_asked_as_that_ones() -> None:
    prompt = asked(replace(candidate(), domain="law")).prompt
    assert "expert in law." in prompt
    assert "finance" not in prompt


def test_of_several_answers_the_one_most_like_the_others_is_kept() -> None:
    class Wavering(Recorder):
        texts = iter(["rose by 5", "fell", "rose by 5 percent", "rose by 5"])

        def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
            return [replace(done, text=next(self.texts)) for done in super().generate(requests, **options)]

    engine, knobs = Wavering(), recipe(response_samples=4)
    requests = request_answers(candidate(), seeds=SEEDS, recipe=knobs, **ABOUT)
    rules = Rules([], is_strict=False)
    [[answer]] = draw_answers([([candidate()], [requests])], rules=rules, generator=engine)
    assert answer.text == "rose by 5"
    assert answer.samples == ("fell", "rose by 5 percent", "rose by 5")
    assert answer.confidence == pytest.approx((0 + 6 / 7 + 1) / 3, abs=1e-6)
    [sent] = engine.waves
    assert [request.temperature for request in sent] == [0.0, 0.7, 0.7, 0.7]
    assert len({request.seed for request in sent}) == 4


def test_of_an_extraction_one_answer_is_made_and_all_that_were_given_are_kept() -> None:
    class Reader(Recorder):
        texts = iter(["Rhine Ltd, Rhine Ltd, Rhi", "Alder Bank, Oslo", "Rhine Ltd, Alder Bank"])

        def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
            done = super().generate(requests, **options)
            return [replace(each, text=next(self.texts), finish_reason="length") for each in done]

    shown = [seed(n, task="firms", input=f"{n} and Co owes {n} Bank.", output=f"{n} and Co, {n} Bank") for n in (1, 2)]
    item = candidate(task="firms", input="Rhine Ltd owes Alder Bank.")
    knobs = recipe(response_samples=3, validity="strict", merge_findings=True)
    rules = Rules(shown, is_strict=True)
    requests = request_answers(item, seeds=shown, recipe=knobs, **ABOUT)
    [[answer]] = draw_answers([([item], [requests])], rules=rules, generator=Reader())
    answer = Merger([(item, answer)], recipe=knobs, rules=rules).merge(item, answer)
    assert answer.merged == "Rhine Ltd, Alder Bank"
    assert {answer.text, *answer.samples} == {"Rhine Ltd, Rhine Ltd, Rhi", "Alder Bank, Oslo", "Rhine Ltd, Alder Bank"}
    example = judge_answer(item, answer, recipe=knobs, rules=rules)
    assert isinstance(example, Example)
    assert example.output == "Rhine Ltd, Alder Bank"


def test_an_extraction_that_found_nothing_that_is_there_is_refused_with_what_was_said() -> None:
    answer = Answer("Lima Bank", "stop", 3, "base", samples=("Oslo",), confidence=0.0, merged="")
    refused = judge_answer(candidate(), answer, recipe=recipe(), rules=Rules([], is_strict=False))
    assert isinstance(refused, Rejection)
    assert (refused.reason, refused.text) == ("nothing_found", "Lima Bank")


def test_draws_of_demonstrations_are_a_tasks_and_each_is_answered() -> None:
    """So that the engine reads each once, however many new tasks are answered behind it."""
    knobs = recipe(response_shots=3, response_draws=4)
    first, second = (
        request_answers(candidate(number, input=text), seeds=SEEDS, recipe=knobs, **ABOUT)
        for number, text in ((1, "Sales rose."), (2, "Costs fell."))
    )
    before = [
        [request.prompt.removesuffix(f"{text}\nResponse:") for request in requests]
        for requests, text in ((first, "Sales rose."), (second, "Costs fell."))
    ]
    assert before[0] == before[1]
    assert len(set(before[0])) == 4
    assert all(prompt.count("Is the tone good or bad?") == 4 for prompt in before[0])
    assert len({request.seed for request in (*first, *second)}) == 8


def test_the_same_draw_twice_is_no_second_answer() -> None:
    """It would agree with itself, and a row would count as sure for nothing."""
    knobs = recipe(response_shots=3, response_draws=4)
    assert len(request_answers(candidate(), seeds=[seed()], recipe=knobs, **ABOUT)) == 1


def test_what_stands_behind_one_draw_is_asked_together_and_each_answer_finds_its_task() -> None:
    class Echo(Recorder):
        def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
            done = super().generate(requests, **options)
            return [replace(each, text=request.prompt) for each, request in zip(done, requests, strict=True)]

    engine, knobs = Echo(), recipe(response_shots=2, response_draws=3)
    items = [candidate(number, input=f"Sales rose by {number}.") for number in range(4)]
    requests = [request_answers(item, seeds=SEEDS, recipe=knobs, **ABOUT) for item in items]
    [answers] = draw_answers([(items, requests)], rules=Rules([], is_strict=False), generator=engine)
    for item, answer in zip(items, answers, strict=True):
        told = (answer.text, *answer.samples)
        assert len(told) == 3
        assert all(text.endswith(f"{item.input}\nResponse:") for text in told)
        assert answer.prompt == answer.text  # the prompt that the chosen answer was given to
    [sent] = engine.waves
    draws = [request.prompt.rpartition("Sales")[0] for request in sent]
    assert len(draws) == 12
    assert len(list(groupby(draws))) == len(set(draws)) == 3


def test_one_answer_needs_no_agreement() -> None:
    [[answer]] = draw_answers(
        [([candidate()], [[asked(candidate())]])],
        rules=Rules([], is_strict=False),
        generator=FakeEngine(),
    )
    assert (answer.samples, answer.confidence) == ((), None)


def judge(
    text: str,
    *,
    finish_reason: str = "stop",
    item: Candidate | None = None,
    confidence: float | None = None,
    is_strict: bool = False,
) -> Example | Rejection:
    answer = Answer(text, finish_reason, 3, "base", confidence=confidence)
    rules = Rules(SEEDS, is_strict=is_strict)
    return judge_answer(item or candidate(), answer, recipe=recipe(response_samples=2, min_agreement=0.5), rules=rules)


def test_an_answer_becomes_an_example_that_can_be_traced() -> None:
    example = judge(" It grew.\r\nA lot. \n")
    assert isinstance(example, Example)
    assert [check.name for check in example.checks if check.is_passed] == [
        "empty_response",
        "truncated_response",
        "unfinished_response",
        "echoes_prompt",
    ]
    assert replace(example, checks=()) == Example(
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


def test_an_answer_that_its_samples_do_not_share_is_dropped() -> None:
    assert isinstance(judge("It grew.", confidence=0.6), Example)
    assert judge("It grew.", confidence=0.4) == Rejection("disagreement", 0, 0, "It grew.")


def test_an_input_written_for_a_label_must_get_that_label() -> None:
    item = replace(candidate(), output="Good")
    assert isinstance(judge("good", item=item), Example)
    refused = judge("bad", item=item)
    assert isinstance(refused, Rejection)
    assert (refused.reason, refused.detail) == ("other_label", "the input was written for 'Good'")


def test_strict_rows_keep_to_what_the_seeds_show() -> None:
    assert isinstance(judge("great"), Example)
    assert judge("great", is_strict=True) == Rejection("unknown_label", 0, 0, "great")
    assert isinstance(judge("good", is_strict=True), Example)
