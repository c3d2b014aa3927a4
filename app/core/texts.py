"""When two texts count as the same."""

from __future__ import annotations


def evened(text: str) -> str:
    """The text without what makes no difference: letter case, and how much white space stands between words."""
    return " ".join(text.casefold().split())
