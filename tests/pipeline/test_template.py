"""The template renders what it is given to the letter, with input and without."""

from __future__ import annotations

import pytest

from app.pipeline.template import ALPACA, PLAIN, TEMPLATES, Template


def test_headings() -> None:
    with_input = ALPACA.render(" Say it. ", "A text\n\nwith parts\n")
    assert with_input.endswith("### Instruction:\nSay it.\n\n### Input:\nA text\n\nwith parts\n\n### Response:\n")
    for empty in ("", " \n"):
        without = ALPACA.render("Say it.", empty)
        assert without.endswith("\n\n### Instruction:\nSay it.\n\n### Response:\n")
        assert "Input" not in without


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("text", ["{input}", "{instruction} {0} {}", "%s \\1 \\g<0> {{input}}", "### Input:"])
def test_texts_are_never_read_as_fields(template: Template, text: str) -> None:
    rendered = template.render(text, text)
    assert rendered.count(text) == 2 + template.with_input.count("### Input:") * (text == "### Input:")
    assert template.render(text).count(text) == 1


def test_a_template_comes_back_from_its_file() -> None:
    assert Template.from_dict(ALPACA.to_dict()) == ALPACA


def test_the_plain_template_adds_no_word() -> None:
    assert PLAIN.render("Say it.", "A text").split() == ["Say", "it.", "A", "text"]
