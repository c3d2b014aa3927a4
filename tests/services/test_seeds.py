"""Seeds read from bytes: what any file may do, and the rules that need no service around them."""

from __future__ import annotations

import json
import random
import string

import pytest

from app.core.errors import InvalidInput, NotReady, Problem, TooLarge
from app.core.records import Seed
from app.pipeline.template import ALPACA
from app.services.domain_names import name_problem
from app.services.seed_checks import MAX_PROBLEMS, check_duplicates, check_leakage, check_lengths, refuse
from app.services.seed_files import Upload
from app.services.seeds import Limits, SeedSet, read_seeds

LIMITS = Limits(max_seeds=100, max_field_chars=1000, max_lora_rank=64)
SEED = {"task": "t", "instruction": "i", "input": "x", "output": "o"}


class Words:
    """Counts words; while ``is_loading`` it cannot."""

    def __init__(self, *, is_loading: bool = False) -> None:
        self.is_loading = is_loading
        self.num_asked = 0

    def clip(self, text: str, num_tokens: int) -> str:
        return " ".join(text.split()[:num_tokens])

    def count(self, text: str) -> int:
        if self.is_loading:
            raise NotReady("the tokenizer is still loading")
        self.num_asked += 1
        return len(text.split())


def read(*rows: object) -> SeedSet:
    return read_seeds(list(rows), source="seeds", limits=LIMITS)


def test_texts_are_stripped_and_input_may_be_left_out() -> None:
    items = read({"task": " t", "instruction": "i\n", "output": "\to "}, {**SEED, "input": None})
    assert items.records() == [Seed("t", "i", "", "o"), Seed("t", "i", "", "o")]
    assert [problem.line for problem in check_duplicates(items)] == [2]


def test_line_ends_of_other_systems_make_no_other_seed() -> None:
    """Else an expert would learn them, and a blank line of theirs would not end an answer."""
    items = read(*({**SEED, "input": newline.join("abc")} for newline in ("\n", "\r\n", "\r")))
    assert [seed.input for seed in items.records()] == ["a\nb\nc"] * 3
    assert len(check_duplicates(items)) == 2


def test_same_question_with_another_answer_is_no_duplicate() -> None:
    assert check_duplicates(read(SEED, {**SEED, "output": "p"})) == []


def test_leakage_ignores_case_spacing_and_answer() -> None:
    evaluation = read_seeds(
        [{**SEED, "input": "y"}, {**SEED, "task": "other", "input": " X\n", "output": "z"}],
        source="evaluation",
        limits=LIMITS,
    )
    assert [(problem.source, problem.line) for problem in check_leakage(read(SEED), evaluation)] == [("evaluation", 2)]


def test_lengths_are_counted_with_template_and_end() -> None:
    items = read({**SEED, "input": "word " * 150})
    words = Words()
    exact = words.count(ALPACA.render("i", "word " * 150) + "o") + 1
    assert check_lengths(items, tokens=words, template=ALPACA, max_tokens=exact) == []
    assert len(check_lengths(items, tokens=words, template=ALPACA, max_tokens=exact - 1)) == 1


def test_short_texts_are_not_counted() -> None:
    """Ten thousand seeds must not cost ten thousand tokenizations."""
    words = Words()
    assert check_lengths(read(SEED), tokens=words, template=ALPACA, max_tokens=1024) == []
    assert words.num_asked == 0


def test_lengths_wait_for_nobody() -> None:
    items = read({**SEED, "input": "word " * 150})
    assert check_lengths(items, tokens=Words(is_loading=True), template=ALPACA, max_tokens=10) == []


def test_too_many_is_told_before_anything_else() -> None:
    with pytest.raises(TooLarge, match="101 items"):
        read(*[{}] * 101)


def test_problems_come_by_line_and_are_cut() -> None:
    problems = [Problem("f", "r", line, "seeds") for line in range(MAX_PROBLEMS + 5, 0, -1)]
    with pytest.raises(InvalidInput) as caught:
        refuse(problems)
    assert [problem.line for problem in caught.value.problems[:3]] == [1, 2, 3]
    assert caught.value.problems[-1].reason == "and 5 more problems like these"
    refuse([])


@pytest.mark.parametrize("name", ["a", "0", "finance", "finance-2_x", "a" * 63])
def test_good_names(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize("suffix", ["", ".jsonl", ".json", ".csv"])
def test_no_bytes_break_the_reader(suffix: str) -> None:
    """Good files with bytes changed, cut and doubled at random: seeds or problems, never another exception."""
    chance = random.Random(0)
    rows = [{**SEED, "input": "".join(chance.choices(string.printable, k=20))} for _ in range(5)]
    jsonl = "\n".join(json.dumps(row) for row in rows).encode()
    table = b'task,instruction,input,output\nt,i,"a ""b"", c",o\nt,i,d,o\n'
    for start in (jsonl, json.dumps(rows).encode(), table):
        for _ in range(300):
            data = bytearray(start)
            for _ in range(chance.randint(1, 6)):
                place = chance.randrange(len(data))
                data[place : place + chance.randint(0, 2)] = chance.randbytes(chance.randint(0, 2))
            items = read_seeds(Upload(bytes(data), "f" + suffix), source="seeds", limits=LIMITS)
            assert items.seeds or items.problems
