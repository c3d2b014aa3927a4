"""Prompts: how much of a question fits, to the token."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.errors import InvalidInput
from app.engine.fake import FakeEngine
from app.pipeline.template import ALPACA
from app.services.prompting import Prompt, Prompter, Question
from app.services.shots import Demonstrations
from tests.services.house import EVALUATION, House

CONTEXT = 300
FRAME = FakeEngine().count(ALPACA.render("Say.", "x")) - 1  # tokens of the prompt around its input


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture
def prompter(house: House) -> Prompter:
    return Prompter(FakeEngine(context_tokens=CONTEXT), Demonstrations(house.database, house.artifacts))


def make(prompter: Prompter, prompt: Question | str, **options: object) -> Prompt:
    chosen = {"job": None, "max_new_tokens": 100, "truncate": False, **options}
    return prompter.make(prompt, ALPACA, **chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize("truncate", [False, True])
def test_what_just_fits_is_left_alone(prompter: Prompter, truncate: bool) -> None:
    words = " ".join(["w"] * (CONTEXT - 100 - FRAME))
    made = make(prompter, Question("Say.", words), truncate=truncate)
    assert (made.text, made.cut_tokens) == (ALPACA.render("Say.", words), 0)


def test_one_token_too_many(prompter: Prompter) -> None:
    words = ["w"] * (CONTEXT - 100 - FRAME + 1)
    with pytest.raises(InvalidInput, match="201 tokens of prompt and 100 new ones"):
        make(prompter, Question("Say.", " ".join(words)))
    made = make(prompter, Question("Say.", " ".join(words)), truncate=True)
    assert (made.text, made.cut_tokens) == (ALPACA.render("Say.", " ".join(words[:-1])), 1)


def test_a_bare_prompt_is_cut_at_its_end(prompter: Prompter) -> None:
    made = make(prompter, "w " * 250, truncate=True)
    assert (made.text.split(), made.cut_tokens) == (["w"] * 200, 50)
    with pytest.raises(InvalidInput, match="prompt"):
        make(prompter, "w " * 300)


def test_the_template_is_never_cut(prompter: Prompter) -> None:
    with pytest.raises(InvalidInput, match="do not fit"):
        make(prompter, Question("word " * 250, "w w"), truncate=True)


def test_an_answer_of_no_set_length_takes_the_rest(prompter: Prompter) -> None:
    made = make(prompter, Question("Say.", "w"), max_new_tokens=None)
    assert made.max_new_tokens == CONTEXT - FRAME - 1


def test_prompts_with_shots_begin_alike(house: House, prompter: Prompter) -> None:
    """Whatever is asked: so the engine computes the demonstrations once."""
    job = house.order(evaluation=EVALUATION)
    one, other = (make(prompter, Question("Say.", text, shots=2), job=job).text for text in ("A", "B"))
    asked = ALPACA.render("Say.", "A")
    assert one.removesuffix(asked) == other.removesuffix(ALPACA.render("Say.", "B"))
    more = make(prompter, Question("Say.", "A", shots=3), job=job, max_new_tokens=10).text
    assert more.startswith(one.removesuffix(asked))
