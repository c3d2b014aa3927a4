"""The strict reader of replies: what is well-formed is read exactly, and whatever is not says what is wrong."""

from __future__ import annotations

import random

import pytest

from app.core.records import Seed
from app.pipeline.prompts import NO_INPUT
from app.pipeline.replies import Item, read_anchored, read_list
from tests.pipeline.samples import reply, seed, seeds

THREE = seeds(3)


def items(text: str, *, finish_reason: str = "stop") -> list[Item]:
    """Items of a reply to a list prompt that showed three seeds, so its first number is 4."""
    return list(read_list(reply(text, shown=THREE, finish_reason=finish_reason)))


def read(text: str) -> list[tuple[str, str, str | None]]:
    return [(item.instruction, item.input, item.fault) for item in items(text)]


GOOD = " Name the firm.\n4. Input: Ann Ltd grew.\n5. Instruction: Is it\n  so?\n5. Input: Two\n\nparts\n"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_well_formed_items(newline: str) -> None:
    """Instructions become one line; inputs keep their lines, blank ones too."""
    expected = [("Name the firm.", "Ann Ltd grew.", None), ("Is it so?", "Two\n\nparts", None)]
    assert read(GOOD.replace("\n", newline)) == expected


def test_items_keep_their_place_and_text() -> None:
    first, second = items(GOOD)
    assert (first.position, second.position) == (0, 1)
    assert first.text == "Name the firm.\n4. Input: Ann Ltd grew."


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("Just talk.", ["no_input_marker"]),
        ("A?\n5. Input: b", ["no_input_marker"]),
        ("A?\nInput: b", ["no_input_marker"]),
        ("A?\n4. Input: b\n4. Input: c", ["stray_marker"]),
        ("A?\n4. Input: b\n4. Output: c", ["stray_marker"]),
        ("A?\n3. Input: x\n4. Input: b", ["stray_marker"]),
        ("A?\n4. Input: b\n4. Instruction: C?\n4. Input: d", [None, "broken_numbering"]),
        ("A?\n4. Input: b\n9. Instruction: C?\n9. Input: d", [None, None]),
        (
            "A?\n4. Input: b\n9. Instruction: C?\n9. Input: d\n5. Instruction: E?\n5. Input: f",
            [None] * 2 + ["broken_numbering"],
        ),
        ("A?\n4. Input: see 5. Instruction: here", [None]),
        ("", ["no_input_marker"]),
    ],
)
def test_what_breaks_the_form_is_named(text: str, faults: list[str | None]) -> None:
    assert [item.fault for item in items(text)] == faults


def test_a_reply_that_was_cut_off_loses_its_last_item_only() -> None:
    assert [item.fault for item in items(GOOD, finish_reason="length")] == [None, "truncated"]
    assert [item.fault for item in items("Name the", finish_reason="length")] == ["truncated"]


def test_an_item_may_say_that_it_has_no_input() -> None:
    assert read(f"What is a bond?\n4. Input: {NO_INPUT.upper()}\n5. Instruction: And a share?\n5. Input:") == [
        ("What is a bond?", "", None),
        ("And a share?", "", None),
    ]


def test_nothing_written_is_lost_and_nothing_breaks_the_reader() -> None:
    """Random splices of what a base writes: every item is read or named, positions count up, the text is all there."""
    pieces = [
        "4. ",
        "5. ",
        "Instruction:",
        "Input:",
        "\n",
        "\r\n",
        " word",
        "\n5. Instruction: Say",
        "\n4. Input: x",
        "é",
    ]
    for number in range(500):
        chance = random.Random(number)
        text = "".join(chance.choices(pieces, k=chance.randint(0, 12)))
        found = items(text, finish_reason=chance.choice(["stop", "length"]))
        assert [item.position for item in found] == list(range(len(found)))
        assert sum(item.text.count("word") for item in found) == text.count("word")
        assert all(item.fault is None or not item.instruction + item.input for item in found)


def anchored(text: str, *shown: Seed, finish_reason: str = "stop") -> Item:
    return read_anchored(reply(text, shown=shown, task="tone", finish_reason=finish_reason), shown)


def test_an_anchored_reply_is_a_new_input_for_the_seeds_instruction() -> None:
    """The instruction is the user's to the letter: a list of labels keeps its lines."""
    shown = Seed("tone", "Choose one:\n- good\n- bad", "Ann Ltd grew.", "good")
    item = anchored(" Bob Ltd fell.\r\nA lot. \n", shown)
    assert item == Item(0, "Bob Ltd fell.\nA lot.", "Choose one:\n- good\n- bad", "Bob Ltd fell.\nA lot.")


@pytest.mark.parametrize("text", ["Text 2:\nBob Ltd fell.", "Bob Ltd fell.\n Text 3: Cid Ltd", "Text 2:"])
def test_an_anchored_reply_holds_one_text(text: str) -> None:
    assert anchored(text, seed()).fault == "several_texts"


@pytest.mark.parametrize("text", ["Text messages are back.", "In Text 2: it says so", "Text: yes"])
def test_a_text_may_speak_of_texts(text: str) -> None:
    """Every reply that began with "Text " was thrown away."""
    assert anchored(text, seed()).input == text


def test_a_text_may_hold_the_usual_heading_where_the_seeds_do() -> None:
    shown = seed(input="Text 2:\nthe second note")
    assert anchored("Text 7:\nthe seventh note", shown).fault is None
    assert anchored("New Text 2:\nthe seventh note", shown).fault == "several_texts"


def test_an_anchored_reply_that_was_cut_off_is_not_kept() -> None:
    assert anchored("Bob Ltd fe", seed(), finish_reason="length").fault == "truncated"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Bob Ltd fell. By 18.5 per", "Bob Ltd fell."),
        ('"Is it so?" they asked. (It is.)\nNo', '"Is it so?" they asked. (It is.)'),
        ("Bob Ltd fell by 18.", ""),  # whatever would have come next
        ("Bob Ltd fe", ""),
    ],
)
def test_an_input_may_be_cut_where_a_sentence_ends(text: str, kept: str) -> None:
    item = read_anchored(reply(text, shown=[seed()], task="tone", finish_reason="length"), [seed()], may_cut=True)
    assert (item.input, item.text) == (kept, text)
    assert item.fault == (None if kept else "truncated")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Bob Ltd fell. Ann Ltd rose. Bob Ltd fell. Ann Ltd rose. Bob", "Bob Ltd fell. Ann Ltd rose."),
        ("It fell by a third in May. It fell by a third in June.", "It fell by a third in May."),
        ("It fell by a third in May. It fell by a half, and in June by more.", None),
        ("Up. Down. Up. Down.", None),  # too short to say
        (
            "Ann said that it rose. Bob said that it fell. Cid said that it stood. Dan said that it went.",
            "Ann said that it rose. Bob said that it fell. Cid said that it stood.",
        ),
        ("so it goes on and on and so it goes on and on and so it goes on and on and so on", ""),
    ],
)
def test_an_input_may_be_cut_where_it_begins_to_repeat_itself(text: str, kept: str | None) -> None:
    whole = reply(text, shown=[seed()], task="tone")
    item = read_anchored(whole, [seed()], may_cut=True)
    assert (item.input, item.fault) == (text if kept is None else kept, "input_repeats" if kept == "" else None)
    assert read_anchored(whole, [seed()]).input == text


def test_seeds_without_input_get_new_instructions() -> None:
    item = anchored("What is\na share?", seed(1, input=""))
    assert (item.instruction, item.input, item.fault) == ("What is a share?", "", None)
