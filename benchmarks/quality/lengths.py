"""How long texts are for a base, so that items the service would refuse can be left out and counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

from app.engine.fake_text import tokens_of
from benchmarks.quality.plan import PlanError

_ENDS = 2  # a token of beginning and one of end


def make_counter(base: Path | None) -> Callable[[str], int]:
    """Tokens of a text with its ends, for the base in a folder; None: for the fake engine. Raises PlanError."""
    if base is None:
        return lambda text: len(tokens_of(text)) + _ENDS
    path = base / "tokenizer.json"
    if not path.is_file():
        raise PlanError(f"the base has no tokenizer.json in {base}")
    tokenizer = Tokenizer.from_file(str(path))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids) + _ENDS
