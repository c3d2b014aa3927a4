"""How a chat becomes one instruction and one input."""

from __future__ import annotations

import pytest

from app.core.errors import InvalidInput
from app.services.chat import Turn, fold


def user(text: str) -> Turn:
    return Turn("user", text)


@pytest.mark.parametrize(
    ("turns", "folded"),
    [
        ([user("What is a bond?")], ("What is a bond?", "")),
        ([user(" Good or bad?\n\nProfit of firm 3\n")], ("Good or bad?", "Profit of firm 3")),
        ([user("Good or bad?\nOne word.\n \t\nFirst.\n\nSecond.")], ("Good or bad?\nOne word.", "First.\n\nSecond.")),
        ([user("Good or bad?\r\n\r\nProfit")], ("Good or bad?", "Profit")),
        ([Turn("system", "Be brief."), user("Good or bad?\n\nProfit")], ("Be brief.\n\nGood or bad?", "Profit")),
        ([Turn("system", "  "), user("Good or bad?")], ("Good or bad?", "")),
        (
            [user("Good or bad?\n\nProfit"), Turn("assistant", "good"), Turn("system", "Be brief."), user("Why?")],
            ("Be brief.\n\nWhy?", "User: Good or bad?\n\nProfit\n\nAssistant: good"),
        ),
        ([user("Hello"), user("Good or bad?\n\nLoss")], ("Good or bad?", "User: Hello\n\nLoss")),
    ],
)
def test_fold(turns: list[Turn], folded: tuple[str, str]) -> None:
    assert fold(turns) == folded


def test_an_input_of_its_own_leaves_the_message_whole() -> None:
    """For instructions that hold blank lines themselves."""
    turns = [user("Good or bad?\n\nOne word.")]
    assert fold(turns, input="Profit") == ("Good or bad?\n\nOne word.", "Profit")
    assert fold(turns, input="") == ("Good or bad?\n\nOne word.", "")


@pytest.mark.parametrize(
    ("turns", "field"),
    [
        ([], "messages"),
        ([user("Hello"), Turn("assistant", "Hi")], "messages.1"),
        ([Turn("system", "Be brief.")], "messages.0"),
        ([user("Hello"), user(" \n")], "messages.1.content"),
    ],
)
def test_a_chat_that_asks_nothing(turns: list[Turn], field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        fold(turns)
    assert refusal.value.param == field
