"""What is kept of the replies, and why the rest is not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from app.core.errors import InvalidInput
from app.core.records import Candidate, Rejection, Reply, Seed
from app.pipeline.acceptance import Acceptance, is_placeholder
from tests.pipeline.samples import recipe, reply, seed, seeds

INPUT = "Quite another text about the weather of a far island"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of everything in some replies."""

    accepted: list[Candidate]
    rejected: list[Rejection]
    is_full: bool


def accept(replies: Sequence[Reply], given: Sequence[Seed], **knobs: object) -> Outcome:
    acceptance = Acceptance(given, recipe=recipe(**{"num_examples": 100, **knobs}))
    results = [result for each in replies for result in acceptance.read(each)]
    accepted = [result for result in results if isinstance(result, Candidate)]
    assert len(accepted) == acceptance.num_accepted
    return Outcome(accepted, [result for result in results if isinstance(result, Rejection)], acceptance.is_full)


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
    long = " ".join(f"word{number}" for number in range(190))
    assert anchored_fault(f"{INPUT} {long}", [seed(input=" ".join("abc" for _ in range(200)))]) is None
    assert (
        list_fault("Which island is it?", f"{INPUT} {long}", shown=[seed(input=" ".join("abc" for _ in range(200)))])
        is None
    )


def test_the_text_of_an_extraction_may_be_cut_to_whole_sentences() -> None:
    """What a part of a text holds is still there to be found; a question at the end of another would be lost."""
    firms = [
        Seed("firms", "List the firms.", f"{name} Ltd owes {name} Bank since May. No one else was asked.", output)
        for name, output in (("Acorn", "Acorn Ltd, Acorn Bank"), ("Birch", "Birch Ltd, Birch Bank"))
    ]
    written = "The Pine Works were sold to Quince Ltd. in spring. A year later Rowan Bank fore"
    cut = reply(written, shown=firms, task="firms", finish_reason="length")
    [kept] = accept([cut], firms, prompt_style="anchored", validity="strict").accepted
    assert kept.input == "The Pine Works were sold to Quince Ltd. in spring."
    assert [each.reason for each in accept([cut], firms, prompt_style="anchored").rejected] == ["truncated"]
    other = reply(written, shown=seeds(2), task="tone", finish_reason="length")
    refused = accept([other], seeds(2), prompt_style="anchored", validity="strict").rejected
    assert [(each.reason, each.text) for each in refused] == [("truncated", written)]


def test_anchored_seeds_without_input_give_instructions_without_input() -> None:
    shown = [seed(1, input=""), seed(2, input="")]
    text = "Why do firms issue bonds?"
    kept = accept([reply(text, shown=shown, task="tone")], shown, prompt_style="anchored").accepted
    assert [(item.instruction, item.input, item.task) for item in kept] == [(text, "", "tone")]
    assert anchored_fault(shown[0].instruction, shown) == "near_duplicate"


def test_what_was_accepted_must_be_differed_from_too() -> None:
    """And the rejection says what it was too like, and how much."""
    shown = seeds(1)
    replies = [reply(text, shown=shown, task="tone") for text in (INPUT, f"{INPUT} today")]
    outcome = accept(replies, shown, prompt_style="anchored")
    [kept], [rejected] = outcome.accepted, outcome.rejected
    assert (rejected.reason, rejected.detail) == ("near_duplicate", f"ROUGE-L 0.952 with item {kept.id}")


def test_a_rejection_says_what_was_met() -> None:
    shown = seeds(1)

    def detail(text: str, **knobs: object) -> str:
        told = [reply(text, shown=shown, task="tone")]
        return accept(told, shown, prompt_style="anchored", **knobs).rejected[0].detail

    assert detail("Dear [Name 2], thank you for it") == "[Name 2]"
    assert detail("ships") == "at least 3 words"
    assert detail("word " * 151) == "at most 150 words"
    assert detail("Firm 7 sold 700 ships in May").endswith(f"with seed {shown[0].id}")
    assert detail(INPUT, blocked_words=["far  Island"]) == "far island"


def test_a_kept_item_carries_every_filters_verdict() -> None:
    shown = seeds(2)
    text = "Firm two of a far island sold its last ships"
    [kept] = accept([reply(text, shown=shown, task="tone")], shown, prompt_style="anchored").accepted
    names = (
        "no_input too_short too_long placeholder input_equals_instruction blocked_word wrong_language near_duplicate"
    )
    assert [check.name for check in kept.checks] == names.split()
    assert all(check.is_passed for check in kept.checks)
    novelty = kept.checks[-1]
    assert novelty.value is not None
    assert 0 <= novelty.value < 0.7
    assert novelty.detail.startswith("ROUGE-L 0.")


@pytest.mark.parametrize(
    ("blocked", "fault"),
    [
        ([], None),
        (["ISLAND"], "blocked_word"),
        (["far island"], "blocked_word"),
        (["isl", "land", "island far"], None),
        (["weather?", " "], None),
    ],
)
def test_blocked_words_are_whole_words_in_any_case(blocked: list[str], fault: str | None) -> None:
    assert list_fault("Which one is it about?", INPUT, blocked_words=blocked) == fault


GERMAN = "Der Umsatz des Unternehmens stieg im zweiten Quartal um sechs Prozent, der Gewinn fiel dagegen leicht."


def test_text_in_another_language_is_refused() -> None:
    assert anchored_fault(GERMAN, seeds(2)) == "wrong_language"
    assert anchored_fault("公司第二季度收入增长百分之六 而 利润 下降", seeds(2)) == "wrong_language"
    assert anchored_fault(GERMAN, [seed(input="Die Aktie des Herstellers fiel nach schwachen Zahlen")]) is None
    rejected = accept([reply(GERMAN, shown=seeds(2), task="tone")], seeds(2), prompt_style="anchored").rejected
    assert rejected[0].detail == "de, not English"


def test_the_recipe_may_ask_for_another_language() -> None:
    shown = [seed(1, input="Die Aktie des Herstellers fiel nach schwachen Zahlen deutlich")]
    assert anchored_fault(GERMAN, shown, language="German") is None
    assert (
        anchored_fault(GERMAN.replace("sechs", "acht"), [seed(1, input=GERMAN)], language="German") == "near_duplicate"
    )
    english = "The company said on Tuesday that its revenue grew by six percent in the second quarter"
    assert anchored_fault(english, seeds(1, "tone"), language="English") is None


def test_a_language_that_nobody_knows_is_refused_with_a_remedy() -> None:
    with pytest.raises(InvalidInput, match=r"recipe\.language: .*did you mean 'German'"):
        accept([], seeds(1), language="Germn")


def test_names_and_numbers_are_in_no_other_language() -> None:
    """Every input of the bundled examples, whole and in short pieces, is good English to the filter."""
    texts = [json.loads(line)["input"] for path in Path("examples").glob("*/seeds.jsonl") for line in _lines(path)]
    pieces = [" ".join(text.split()[start : start + 4]) for text in texts[::3] for start in range(0, 24, 8)]
    shown = seeds(1)
    outcome = accept(
        [reply(text, shown=shown, task="tone") for text in [*texts, *pieces]],
        shown,
        prompt_style="anchored",
        num_examples=10_000,
        max_words=1000,
    )
    assert len(outcome.accepted) > 150
    assert "wrong_language" not in {rejection.reason for rejection in outcome.rejected}


def test_an_input_that_was_written_for_a_label_carries_it() -> None:
    """Only of tasks with a few labels, and only where the recipe asks for the label first."""
    given = [seed(n, output=label) for n, label in enumerate(["good", "bad"] * 2)]
    told = [reply(INPUT, shown=[given[1], given[3]], task="tone")]

    def outputs(given: Sequence[Seed], **knobs: object) -> list[str | None]:
        return [kept.output for kept in accept(told, given, prompt_style="anchored", **knobs).accepted]

    assert outputs(given, label_first=True) == ["bad"]
    assert outputs(given) == [None]
    odd = [replace(item, output=item.output if n in (1, 3) else f"other {n}") for n, item in enumerate(given)]
    assert outputs(odd, label_first=True) == [None]


def test_a_candidate_is_of_the_domain_of_the_seeds_that_were_shown() -> None:
    shown = [replace(item, domain="law") for item in seeds(2)]
    [kept] = accept([reply(INPUT, shown=shown, task="tone")], shown, prompt_style="anchored").accepted
    assert kept.domain == "law"


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


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()
