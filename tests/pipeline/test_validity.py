"""What a generated row must have in common with its task's seeds."""

from __future__ import annotations

import pytest

from app.core.records import Seed
from app.pipeline.validity import Rules, fault_of_input, fault_of_output, is_closed, profile_of

TONE = [
    Seed("tone", "Good, bad or neutral?", f"Firm {n} made a step forward", label)
    for n, label in enumerate(["good", "bad", "neutral", "good", "bad", "good"])
]
NAMES = [
    Seed("names", "Find names: ORG (firm), LOC (place). None if there is none.", text, output)
    for text, output in [
        ("Nordbank of Oslo paid Acme Ltd.", "ORG: Nordbank, Acme Ltd.; LOC: Oslo"),
        ("The bank lent to Rhine Motors.", "ORG: Rhine Motors"),
        ("Rates did not change at all.", "None"),
        ("Sales in Lima, Peru, grew.", "LOC: Lima, Peru"),
    ]
]
FIGURES = [
    Seed("figures", "Give the revenue.", f"Revenue was {n}.5 million in 2019, costs 3.", f"{n}.5") for n in range(4, 9)
]
PROSE = [Seed("prose", "Why?", f"Event {n} came as a surprise to all.", f"Since {n} nobody had looked.") for n in "abc"]


def fault(seeds: list[Seed], output: str, *, input: str) -> str | None:
    return fault_of_output(output, input, seeds[0].instruction, profile_of(seeds))


@pytest.mark.parametrize(("output", "expected"), [("good", None), ("Neutral", None), ("great", "unknown_label")])
def test_a_label_must_be_one_of_the_seeds(output: str, expected: str | None) -> None:
    assert fault(TONE, output, input="Any text of a firm") == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("ORG: Harbour Trust; LOC: Kiel", None),
        ("org: Harbour Trust", "unknown_label"),
        ("ORG: harbour trust", None),
        ("None", None),
        ("Harbour Trust", "other_form"),
        ("DATE: May", "unknown_label"),
        ("ORG: Harbour Bank", "not_in_input"),
        ("ORG: Harbour Trust, Harbour Trust", "repeated_piece"),
        ("ORG: Harbour Trust; LOC: Kiel; ORG: Kiel; LOC: Harbour", "output_length"),
    ],
)
def test_what_is_extracted_stands_in_the_input_in_the_seeds_form(output: str, expected: str | None) -> None:
    assert fault(NAMES, output, input="Harbour Trust opened in Kiel in May.") == expected


@pytest.mark.parametrize(("output", "expected"), [("7.5", None), ("8", "not_in_input")])
def test_a_number_must_stand_in_the_input(output: str, expected: str | None) -> None:
    assert fault(FIGURES, output, input="Revenue was 7.5 million in 2021.") == expected


def test_seeds_that_do_not_keep_a_rule_ask_it_of_nobody() -> None:
    sums = [Seed("sum", "Add them.", f"{n} and {n}", f"{2 * n}") for n in range(10, 14)]
    assert fault(sums, "31", input="15 and 16") is None
    assert fault(PROSE, "Nothing here stands in it.", input="Event d came.") is None


def test_inputs_are_about_as_long_as_the_seeds_and_do_not_go_round_in_circles() -> None:
    profile = profile_of(TONE)
    assert fault_of_input("Firm 9 made a step back", profile) is None
    assert fault_of_input("Firm", profile) == "input_length"
    assert fault_of_input("word " * 40, profile) == "input_length"
    assert (
        fault_of_input("it rose and " * 4, profile_of([*PROSE, Seed("p", "Why?", "x " * 30, "y")])) == "input_repeats"
    )


def test_a_part_of_a_text_is_enough_where_answers_list_texts_of_it() -> None:
    text = "Ann met Bob. " + "It was a long day in town. " * 4
    names = [Seed("names", "Name all.", text + f"Guest {n} came.", f"Ann, Bob, Guest {n}") for n in range(3)]
    whole = [Seed("moral", "What is learned?", seed.input, "That days are long.") for seed in names]
    assert fault_of_input("Cid met Dan on the way to town.", profile_of(names)) is None
    assert fault_of_input("Cid met Dan on the way to town.", profile_of(whole)) == "input_length"
    assert fault_of_input("Cid met Dan.", profile_of(names)) == "input_length"


def test_few_short_answers_are_labels_and_many_are_not() -> None:
    assert is_closed(TONE)
    assert not is_closed(FIGURES)
    assert not is_closed(PROSE)


def test_rows_without_a_task_are_judged_by_no_profile() -> None:
    rules = Rules(TONE, is_strict=True)
    assert rules.fault_of_input(None, "x") is None
    assert rules.fault_of_input("tone", "x") == "input_length"
    assert Rules(TONE, is_strict=False).fault_of_input("tone", "x") is None
