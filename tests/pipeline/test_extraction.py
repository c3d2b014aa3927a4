"""Answers that list texts of their input: how they are read, and how one is made of several."""

from __future__ import annotations

import pytest

from app.core.records import Answer, Candidate, Seed
from app.pipeline.extraction import Finding, findings_of, write_findings
from app.pipeline.merging import Merger
from app.pipeline.validity import Rules
from tests.pipeline.samples import recipe

ASK = "Find names: ORG (firm), LOC (place). None if there is none."
NAMES = [
    Seed("names", ASK, "Nordbank of Oslo paid Acme Ltd and Nordbank Leasing.", "ORG: Nordbank, Acme Ltd; LOC: Oslo"),
    Seed("names", ASK, "The bank lent to Rhine Motors.", "ORG: Rhine Motors"),
    Seed("names", ASK, "Rates did not change at all.", "None"),
]
ILLS = [
    Seed("ills", "List the illnesses.", "Measles and mumps are seldom seen with gout.", "Measles, mumps, gout"),
    Seed("ills", "List the illnesses.", "Of cough there was no word, of flu there was.", "cough, flu"),
]
FIGURES = [
    Seed(
        "figures", "Which figures are told?", "Sales were 7 in May and 5 in June.", "Sales -> May: 7; Sales -> June: 5"
    ),
    Seed("figures", "Which figures are told?", "Costs were 3 in May.", "Costs -> May: 3"),
]
QUOTES = [
    Seed("quote", "Quote why.", f"It fell, as {why}, by a third.", f"as {why}")
    for why in ("rain, hail and frost came", "nobody, not even Ann, cared", "it, too, was old")
]


def merged(seeds: list[Seed], input: str, *answers: str, cut: str | None = None) -> tuple[str, float] | None:
    """``cut``: one more answer, at which the limit fell."""
    asked = Candidate(seeds[0].instruction, input, seeds[0].task, 0, 0, ())
    told = [(answer, "stop") for answer in answers] + ([] if cut is None else [(cut, "length")])
    [made] = learned(seeds, [(asked, answer_of(told))])
    return None if made.merged is None else (made.merged, made.confidence if made.confidence is not None else 1.0)


def answer_of(told: list[tuple[str, str]], *, writers: str = "") -> Answer:
    """What several said, with how each ended; ``writers``: a letter each."""
    by = list(writers or "b" * len(told))
    (text, end), *others = told
    texts, ends = tuple(text for text, _ in others), tuple(end for _, end in others)
    return Answer(text, end, 3, by[0], samples=texts, sample_generators=tuple(by[1:]), sample_finish_reasons=ends)


def learned(seeds: list[Seed], pairs: list[tuple[Candidate, Answer]], *, validity: str = "strict") -> list[Answer]:
    rules = Rules(seeds, is_strict=validity == "strict")
    merger = Merger(pairs, recipe=recipe(merge_findings=True, validity="strict"), rules=rules)
    return [merger.merge(*pair) for pair in pairs]


@pytest.mark.parametrize(
    ("output", "findings"),
    [
        ("gout, flu", [Finding("", "", "gout"), Finding("", "", "flu")]),
        ("A: x, y; B: z", [Finding("", "A", "x"), Finding("", "A", "y"), Finding("", "B", "z")]),
        ("S -> A: x, y; S -> B: z", [Finding("S", "A", "x, y"), Finding("S", "B", "z")]),
    ],
)
def test_what_is_read_is_written_again(output: str, findings: list[Finding]) -> None:
    assert findings_of(output) == findings
    assert write_findings(findings) == output


TEXT = "Harbour Trust of Kiel owes Baltic Bank."


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        # what others found too is kept, whoever found it; what is nowhere written is not
        (["ORG: Harbour Trust; LOC: Lima", "ORG: Baltic Bank; LOC: Kiel", "ORG: Harbour Trust, Baltic Bank"],
         "ORG: Harbour Trust, Baltic Bank"),
        # in the order of the text, as it is written there, each once
        (["LOC: kiel; ORG: harbour trust, harbour trust"], "ORG: Harbour Trust; LOC: Kiel"),
        # the end of a word is no text of its own
        (["ORG: bour Trust, Harbour Trust", "ORG: bour Trust, Harbour Trust"], "ORG: Harbour Trust"),
        # one label a text, the most found
        (["ORG: Kiel", "LOC: Kiel", "LOC: Kiel"], "LOC: Kiel"),
        # neither labels that there are not, nor texts without one
        (["BANK: Baltic Bank; ORG: Harbour Trust", "Baltic Bank; ORG: Harbour Trust"], "ORG: Harbour Trust"),
        # most say that there is nothing
        (["None", "none", "ORG: Harbour Trust"], "None"),
        (["None", "ORG: Harbour Trust", "ORG: Harbour Trust"], "ORG: Harbour Trust"),
        # far more text than any seed's findings have
        (["ORG: Harbour Trust of Kiel owes, Harbour Trust"], "ORG: Harbour Trust"),
        (["ORG: Harbour Trust\nORG: Baltic Bank"], "ORG: Harbour Trust"),
    ],
)  # fmt: skip
def test_one_answer_is_made_of_what_several_found(answers: list[str], expected: str) -> None:
    made = merged(NAMES, TEXT, *answers)
    assert made is not None
    assert made[0] == expected


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (["ash, oak, elm, fir", "ash, oak, elm"], "yew, box, may, bay"),
        (["ash, oak", "elm"], "yew"),
    ],
)
def test_the_more_findings_the_seeds_lead_to_expect_the_more_are_kept(listed: list[str], expected: str) -> None:
    """Each answer finds little. Where there is much to find, what only one of them found is worth having."""
    seeds = [Seed("trees", "List them.", "Of ash and oak and elm and fir they spoke.", output) for output in listed]
    made = merged(seeds, "Of yew and box and may and bay we spoke.", "yew", "yew, box", "yew, may", "bay, yew")
    assert made is not None
    assert made[0] == expected


def test_where_nothing_that_was_found_is_written_there_is_no_answer() -> None:
    assert merged(NAMES, TEXT, "ORG: Acme", "LOC: Oslo") == ("", 0.0)


def test_an_answer_that_goes_round_in_circles_is_what_it_found_once() -> None:
    made = merged(ILLS, "Gout came first, then gout again, then mumps.", cut="gout, Gout, gout, mumps, gout, gout, gou")
    assert made == ("Gout, gout, mumps", 1.0)


def test_the_more_alike_the_answers_the_surer() -> None:
    sure, unsure = (merged(NAMES, TEXT, "ORG: Harbour Trust", other) for other in ("ORG: Harbour Trust", "LOC: Kiel"))
    assert sure == ("ORG: Harbour Trust", 1.0)
    assert unsure is not None
    assert unsure[1] < 1


def test_what_is_told_of_a_subject_stays_with_it() -> None:
    made = merged(
        FIGURES, "In May rents were 4, and in June 6.", "rents -> May: 4; rents -> June: 9", "rents -> June: 6"
    )
    assert made is not None
    assert made[0] in ("rents -> May: 4; rents -> June: 6", "rents -> May: 4", "rents -> June: 6")
    assert merged(FIGURES, "In May rents were 4.", "dues -> May: 4", "dues -> May: 4") == ("", 0.0)


def test_one_text_has_such_labels_only_as_the_seeds_show_together() -> None:
    same = Seed("figures", FIGURES[0].instruction, "In May and June rents were 4.", "rents -> May: 4; rents -> June: 4")
    told, said = "In May sales were 8, and in June.", ["sales -> May: 8; sales -> June: 8", "sales -> May: 8"]
    assert merged(FIGURES, told, *said) == ("sales -> May: 8", 1.0)
    assert merged([*FIGURES, same], told, *said) == ("sales -> May: 8; sales -> June: 8", 0.75)


def test_what_a_writer_says_far_more_often_than_the_seeds_counts_less() -> None:
    """An adapter of eight seeds, two of which say so, called every figure a false positive."""
    odd = Seed("figures", FIGURES[0].instruction, "Of 9 nothing is known.", "odd: 9")
    seeds = [*FIGURES * 3, odd]
    numbers = range(10, 30)
    asked = [Candidate(odd.instruction, f"Profit was {n} in May.", "figures", n, 0, ()) for n in numbers]
    said = [[(f"odd: {n}", "stop")] * 3 + [(f"Profit -> May: {n}", "stop")] * 2 for n in numbers]
    pairs = [(each, answer_of(answers, writers="aaabb")) for each, answers in zip(asked, said, strict=True)]
    assert [answer.merged for answer in learned(seeds, pairs)] == [f"Profit -> May: {n}" for n in numbers]


def test_a_single_text_with_commas_is_no_list() -> None:
    """Parts of a quotation, put together anew, would be a quotation of nobody."""
    assert merged(QUOTES, "It rose, as wine, beer and tea sold, by a half.", "as wine, beer and tea sold") is None


def test_labels_and_prose_are_no_lists() -> None:
    tone = [Seed("tone", "Good or bad?", f"Firm {n} grew", label) for n, label in enumerate(["good", "bad"] * 2)]
    prose = [Seed("prose", "Why?", f"Event {n} surprised all", f"Since {n} nobody, or few, had looked") for n in "abc"]
    assert merged(tone, "Firm 9 grew", "good", "bad") is None
    assert merged(prose, "Event z surprised all", "Since z few had looked") is None
    unknown = Candidate("Anything?", "Anything", "another", 0, 0, ())
    said = answer_of([("ORG: Anything", "stop")])
    assert learned(NAMES, [(unknown, said)]) == [said]
    assert learned(NAMES, [(Candidate(ASK, TEXT, "names", 0, 0, ()), said)], validity="off") == [said]
