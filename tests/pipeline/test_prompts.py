"""The prompts say what they must, and a reader of the replies can rely on their layout."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from app.core.records import Seed
from app.pipeline.prompts import (
    NO_INPUT,
    anchored_prompt,
    heading,
    label_of,
    list_prompt,
    response_prompt,
    shorten,
    varying_texts,
)
from tests.pipeline.samples import seed, seeds

BRACES = "{domain} {0} {instruction} %s"


@pytest.mark.parametrize(
    "said",
    [
        r"different verbs",
        r"questions with requests",
        r"[Vv]ary the kind of task",
        r"language model that only reads and writes text",
        r"Write in English",
        r"one or two sentences",
        r"realistic and substantial text, never a placeholder",
        r"differ from each other while all belong to finance",
    ],
)
def test_a_list_prompt_makes_every_requirement_of_the_paper(said: str) -> None:
    """The eight of the paper's Table 6."""
    assert re.search(said, list_prompt("finance", seeds(3), num_tasks=20))


def test_prompts_ask_for_the_recipes_language() -> None:
    assert "Write in German." in list_prompt("finance", seeds(3), num_tasks=20, language="German")
    assert "following texts in German from" in anchored_prompt("finance", seeds(3), language="German")
    assert "English" not in anchored_prompt("finance", seeds(3))


def test_a_list_prompt_asks_for_so_many_tasks_and_ends_where_the_next_begins() -> None:
    shown = seeds(3)
    text = list_prompt("finance", shown, num_tasks=20, description="reports")
    assert "list of 20 different tasks from the field of finance (reports)" in text
    items = "".join(f"{n}. Instruction: {s.instruction}\n{n}. Input: {s.input}\n" for n, s in enumerate(shown, 1))
    assert text.endswith(f"{items}4. Instruction:")


def test_a_list_prompt_says_of_a_seed_that_it_has_no_input() -> None:
    shown = [seed(1, input=""), seed(2)]
    assert f"\n1. Input: {NO_INPUT}\n2. Instruction:" in list_prompt("finance", shown, num_tasks=20)


def test_an_anchored_prompt_names_the_task_once_and_ends_where_the_new_text_begins() -> None:
    shown = seeds(3)
    text = anchored_prompt("finance", shown, description="reports")
    assert text.count(shown[0].instruction) == 1
    assert "the field of finance (reports)" in text
    assert "other names, other numbers and other events" in text
    texts = "".join(f"Text {n}:\n{item.input}\n\n" for n, item in enumerate(shown, 1))
    assert text.endswith(f"\n\n{texts}Text 4:\n")


def test_an_anchored_prompt_of_seeds_without_input_shows_their_instructions() -> None:
    shown = [seed(1, input=""), seed(2, input="")]
    text = anchored_prompt("finance", shown)
    assert text.endswith(f"Text 1:\n{shown[0].instruction}\n\nText 2:\n{shown[1].instruction}\n\nText 3:\n")
    assert "one task" not in text
    assert varying_texts(shown) == [shown[0].instruction, shown[1].instruction]


@pytest.mark.parametrize(
    ("inputs", "label"),
    [
        (["plain", "Text without a number: yes", "in the middle Text 2: no"], "Text"),
        (["Text 2:\nin the way"], "New Text"),
        (["Text 1: a", "one\n  New Text 17: b"], "New New Text"),
    ],
)
def test_no_seed_looks_like_the_next_text(inputs: list[str], label: str) -> None:
    """A seed that holds "Text 2:" itself would make the parser cut every reply to its prompt."""
    shown = [seed(input=text) for text in inputs]
    assert label_of(shown) == label
    marks = heading(label).findall(anchored_prompt("finance", shown))
    assert len(marks) == len(shown) + 1


def test_a_response_prompt_shows_no_demonstration_unless_asked() -> None:
    plain = response_prompt("finance", "Say it.", "A text", description="reports")
    assert plain.startswith("You are an expert in finance (reports).")
    assert plain.endswith("\n\nInstruction: Say it.\nInput: A text\nResponse:")
    shot = seed(1)
    shown = response_prompt("finance", "Say it.", "A text", shots=[shot])
    assert f"Instruction: {shot.instruction}\nInput: {shot.input}\nResponse: {shot.output}\n\n" in shown
    assert "Input:" not in response_prompt("finance", "Say it.", "")


def test_braces_in_texts_are_left_as_they_are() -> None:
    shown = [Seed(BRACES, BRACES, BRACES, BRACES)]
    for text in (
        list_prompt("finance", shown, num_tasks=20, description=BRACES),
        anchored_prompt("finance", shown, description=BRACES),
        response_prompt("finance", BRACES, BRACES, shots=shown, description=BRACES),
    ):
        assert text.count(BRACES) == 3 + 3 * text.startswith("You are")


def test_a_prompt_that_does_not_fit_shows_fewer_seeds() -> None:
    five = seeds(5)
    asked: list[int] = []

    def fits(prompt: str) -> bool:
        asked.append(len(prompt))
        return len(prompt) <= 2

    def make(shown: Sequence[Seed]) -> str:
        return "x" * len(shown)

    assert shorten(five, make, fits=fits, least=1) == five[:2]
    assert asked == [5, 4, 3, 2]
    assert shorten(five, make, fits=lambda prompt: False, least=1) == five[:1]
    assert shorten(five, make, fits=lambda prompt: False, least=0) == []
