"""What the expert is judged by must not be learned: by words in a row and by ROUGE-L, but for what the seeds hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.core.records import Example, Origin, Seed
from app.pipeline.contamination import Contamination, Hit
from app.pipeline.training_rows import seed_example
from tests.pipeline.samples import recipe

RULE = "In this task you are given a report of a listed firm and asked to say whether its tone is good or bad."
REPORT = (
    "Brindlemoor Foods closed its second quarter with net sales of 418 million, six percent above the year before, "
    "while net income slipped to 22 million as cocoa and freight bills climbed in every region it sells to."
)
SEED = Seed("tone", RULE, "Halvane Cruises carried more guests than ever in a stormy winter.", "good")
ITEM = Seed("tone", RULE, REPORT, "bad")
OTHER = "Yesterday a small museum by the sea opened its doors again after two years of repairs and many delays."


def example(instruction: str = RULE, input: str = OTHER, output: str = "good") -> Example:
    row = seed_example(Seed("tone", instruction, input, output))
    return replace(row, origin=Origin.GENERATED, generator="base")


def judge(row: Example, *items: Seed, **knobs: object) -> Hit | None:
    return Contamination(items or [ITEM], seeds=[SEED], recipe=recipe(**knobs)).judge(row)[0]


def test_a_row_of_its_own_is_clean() -> None:
    hit, likeness = Contamination([ITEM], seeds=[SEED], recipe=recipe()).judge(example())
    assert hit is None
    assert likeness.name == ITEM.id
    assert 0 < likeness.score < 0.5


def test_the_tasks_instruction_in_seeds_and_evaluation_is_no_hit() -> None:
    """Every row of a task has it."""
    assert judge(example(input=f"{RULE} {OTHER}")) is None
    plain = [Seed("ask", f"{RULE} Number {n}.", "", "good") for n in range(2)]
    clean = Contamination(plain[1:], seeds=plain[:1], recipe=recipe(contamination_threshold=1.0))
    assert clean.judge(example(instruction=f"{RULE} Number 7.", input=""))[0] is None


@pytest.mark.parametrize("place", ["instruction", "input", "output"])
def test_thirteen_words_in_a_row_are_a_hit_wherever_they_stand(place: str) -> None:
    words = REPORT.split()
    for number, is_hit in ((13, True), (12, False)):
        text = f"{OTHER} {' '.join(words[5 : 5 + number])} {OTHER}".upper()
        hit = judge(example(**{place: text}))
        assert (hit is not None) == is_hit
        if hit is not None:
            assert (hit.kind, hit.value, hit.item) == ("ngram", 13, ITEM.id)
            assert hit.shared.startswith("quarter with net sales of 418 million six")


def test_the_longest_run_is_told() -> None:
    words = REPORT.split()
    hit = judge(example(input=f"{' '.join(words[:14])} {OTHER} {' '.join(words[3:30])}"))
    assert hit is not None
    assert hit.value == 27


def test_the_recipe_says_how_many_words() -> None:
    row = example(input=f"{OTHER} {' '.join(REPORT.split()[5:10])}")
    assert judge(row) is None
    assert judge(row, contamination_ngram=5) is not None


def test_a_reworded_item_is_a_hit_by_rouge_l() -> None:
    """Every eighth word another: no thirteen in a row, yet the same text."""
    text = " ".join("other" if place % 8 == 7 else word for place, word in enumerate(REPORT.split()))
    hit = judge(example(input=text))
    assert hit is not None
    assert (hit.kind, hit.item) == ("rouge_l", ITEM.id)
    assert 0.7 < hit.value < 1
    assert judge(example(input=text), contamination_threshold=0.95) is None


def test_answers_of_the_evaluation_count_too() -> None:
    item = replace(ITEM, input="Short one", references=("bad", REPORT))
    assert judge(example(output=REPORT), item) is not None
    assert judge(example(output=REPORT), replace(item, references=())) is None
