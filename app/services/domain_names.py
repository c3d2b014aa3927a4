"""What a domain may be called: its name stands in URLs, file names and version names such as ``finance@v2``."""

from __future__ import annotations

import re

from app.core.errors import InvalidInput, Problem

PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
RULE = "1 to 63 of: small letters a-z, digits, - and _; the first a letter or a digit"


def name_problem(name: object) -> Problem | None:
    """What is wrong with a name, or None."""
    if name is None:
        return Problem("domain", "is missing")
    if not isinstance(name, str):
        return Problem("domain", "must be a text")
    if re.fullmatch(PATTERN.strip("^$"), name):
        return None
    if not name:
        return Problem("domain", f"is empty; a name is {RULE}")
    bad = next((letter for letter in name if not re.fullmatch("[a-z0-9_-]", letter)), None)
    why = f"{bad!r} cannot be part of a domain's name" if bad is not None else "this cannot be a domain's name"
    return Problem("domain", f"{why}; a name is {RULE}")


def check_name(name: str) -> str:
    """The name itself; raises InvalidInput."""
    if problem := name_problem(name):
        raise InvalidInput([problem])
    return name
