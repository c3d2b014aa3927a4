"""What is kept of the replies, and why the rest is not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from app.core.records import Reply, Seed
from app.pipeline.acceptance import Acceptance, is_placeholder
from tests.pipeline.samples import recipe, reply, seed, seeds

INPUT = "Quite another text about the weather of a far island"


def accept(replies: Sequence[Reply], given: Sequence[Seed], **knobs: object) -> Acceptance:
    acceptance = Acceptance(given, recipe=recipe(**{"num_examples": 100, **knobs}))
    for each in replies:
        acceptance.read(each)
    return acceptance


def list_fault(instruction: str, input: str, *, shown: Sequence[Seed] = (), **knobs: object) -> str | None:
    """Why a list item is not kept, or None."""
    given = list(shown) or seeds(1)
    text = f"{instruction}\n{len(given) + 1}. Input: {input}"
    acceptance = accept([reply(text, shown=given)], given, **knobs)
    assert len(acceptance.accepted) + len(acceptance.rejected) == 1
    return acceptance.rejected[0].reason if acceptance.rejected else None


def anchored_fault(text: str, shown: Sequence[Seed], **knobs: object) -> str | None:
    """Why an anchored reply is not kept, or None."""
    acceptance = accept([reply(text, shown=shown, task=shown[0].task)], shown, prompt_style="anchored", **knobs)
    return acceptance.rejected[0].reason if acceptance.rejected else None


@pytest.mark.parametrize(
    ("instruction", "input", "fault"),
    [
        ("Which island is it about?", INPUT, None),
        ("Island?", INPUT, "too_short"),
        ("Which island is it about?", "Crete", None),
        ("Which island is it about?", "", "no_input"),
        ("Which island is it about?", "word " * 151, "too_long"),
        ("word " * 151, INPUT, "too_long"),
        ("Which island is it about?", "See [company name] for more about it", "placeholder"),
        ("What does [insert company] sell?", INPUT, "placeholder"),
        ("Which island is it about?", "which ISLAND is it about?", "input_equals_instruction"),
        (seed().instruction, seed().input, "near_duplicate"),
        (seed().instruction, seed().input.replace("May", "June"), "near_duplicate"),
        (seed().instruction, INPUT, None),
    ],
)
def test_rules_of_a_list(instruction: str, input: str, fault: str | None) -> None:
    assert list_fault(instruction, input) == fault


def test_a_list_item_may_lack_an_input_where_a_seed_does() -> None:
    shown = [seed(1, input=""), seed(2)]
    assert list_fault("Why do firms issue bonds?", "(none)", shown=shown) is None
    assert list_fault("Why do firms issue bonds?", "", shown=shown) is None
    assert list_fault("Why do firms issue bonds?", "(none)", shown=[seed(2)]) == "no_input"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (INPUT, None),
        ("Firm 7 sold 700 ships in May", "near_duplicate"),
        ("ships", "too_short"),
        ("word " * 151, "too_long"),
        ("[Your text here]", "placeholder"),
        ("N/A", "too_short"),
        ("Text 3:\nmore", "several_texts"),
    ],
)
def test_rules_of_an_anchored_reply(text: str, fault: str | None) -> None:
    assert anchored_fault(text, seeds(2)) == fault


def test_a_long_instruction_does_not_make_every_new_input_a_near_duplicate() -> None:
    """ROUGE-L over instruction and input refused 10 of 12 unlike inputs of a task with a long instruction."""
    long = "Name every company in the text with its kind, in the order of the text, as a list with commas between " * 2
    shown = [Seed("entities", long, "Ann Ltd of Hull bought Bob plc", "…")]
    assert anchored_fault("Shares of Cid & Sons fell after a poor quarter", shown) is None
    assert anchored_fault("Ann Ltd of York bought Bob plc", shown) == "near_duplicate"


def test_no_rule_is_stricter_than_the_seeds() -> None:
    """Tasks on single words, and anonymised texts, would otherwise accept nothing at all."""
    assert anchored_fault("MSFT", [seed(input="AAPL"), seed(input="The firm of Cupertino")]) is None
    assert anchored_fault("Call [name] today", [seed(input="[NAME] was seen in May")]) is None
    assert list_fault("Island?", INPUT, shown=[Seed("t", "Why?", "x y", "o")]) is None


def test_anchored_seeds_without_input_give_instructions_without_input() -> None:
    shown = [seed(1, input=""), seed(2, input="")]
    text = "Why do firms issue bonds?"
    kept = accept([reply(text, shown=shown, task="tone")], shown, prompt_style="anchored").accepted
    assert [(item.instruction, item.input, item.task) for item in kept] == [(text, "", "tone")]
    assert anchored_fault(shown[0].instruction, shown) == "near_duplicate"


def test_what_was_accepted_must_be_differed_from_too() -> None:
    shown = seeds(1)
    replies = [reply(INPUT, shown=shown, task="tone")] * 2
    acceptance = accept(replies, shown, prompt_style="anchored")
    assert (len(acceptance.accepted), [item.reason for item in acceptance.rejected]) == (1, ["near_duplicate"])


def test_every_item_can_be_traced_to_its_place_in_its_reply() -> None:
    shown = seeds(3)
    text = (
        f"Which island is it?\n4. Input: {INPUT}\n5. Instruction: No input\n6. Instruction: Why so?\n6. Input: [text]"
    )
    acceptance = accept([Reply(17, tuple(item.id for item in shown), None, text, "length", 9)], shown)
    assert [(item.reply, item.item, item.seed_ids) for item in acceptance.accepted] == [
        (17, 0, tuple(item.id for item in shown))
    ]
    rejected = [(item.reply, item.item, item.reason, item.text) for item in acceptance.rejected]
    assert rejected == [(17, 1, "no_input_marker", "No input"), (17, 2, "truncated", "Why so?\n6. Input: [text]")]


def test_nothing_is_read_once_there_is_enough() -> None:
    shown = seeds(3)
    text = f"Which island is it?\n4. Input: {INPUT}\n5. Instruction: Whose ship is it?\n5. Input: A red one in port"
    acceptance = accept([reply(text, shown=shown)] * 3, shown, num_examples=1)
    assert acceptance.is_full
    assert (len(acceptance.accepted), acceptance.rejected) == (1, [])
    assert accept([reply(text, shown=shown)], shown, num_examples=0).accepted == []


@pytest.mark.parametrize(
    "text",
    [
        "[company name]",
        "Dear [Name 2], thank you",
        "[insert the text of the article here]",
        "<input>",
        "<your text here>",
        "{date}",
        "Lorem ipsum dolor sit amet",
        "N/A",
        "none.",
        "...",
        "[noinput]",
        "",
    ],
)
def test_placeholders(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize(
    "text",
    [
        '"[The company] will grow," she said.',
        "Sales 2023: N/A; sales 2024: 7",
        "if a < 5 and the text says b > 3",
        "[1] first, [2] second",
        "None of the firms grew.",
        "renamed [sic] twice",
        "{'revenue': 7}",
        "Выручка выросла",
    ],
)
def test_texts_that_only_look_like_placeholders(text: str) -> None:
    """A table cell "N/A" and an editor's brackets were refused."""
    assert not is_placeholder(text)
