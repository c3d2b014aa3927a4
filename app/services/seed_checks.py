"""What must hold between items: no duplicates, no leakage from what is learned to evaluation, none too long.

Each check returns problems; nothing here raises or knows how the items were read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from app.core.errors import InvalidInput, NotReady, Problem
from app.core.ports import Tokens
from app.pipeline.holdout import question_of
from app.pipeline.template import Template
from app.services.seeds import PlacedSeed, SeedSet

MAX_PROBLEMS = 1000  # told one by one; the rest is counted
DUPLICATE, LEAKAGE = "duplicate", "leakage"  # how the reasons of such problems begin


def check_duplicates(items: SeedSet) -> list[Problem]:
    """Items that repeat an earlier one of their set in every field."""
    first: dict[str, int] = {}
    problems = []
    for placed in items.seeds:
        line = first.setdefault(placed.seed.id, placed.line)
        if line != placed.line:
            problems.append(Problem("item", f"{DUPLICATE}: the same as line {line}", placed.line, placed.source))
    return problems


def check_leakage(seeds: SeedSet, evaluation: SeedSet) -> list[Problem]:
    """Evaluation items that ask what a seed asks, whatever answer they give: who learned it would have seen them."""
    asked = {question_of(placed.seed): placed for placed in seeds.seeds}
    return [
        Problem(
            "item",
            f"{LEAKAGE}: the same instruction and input as line {own.line} of {own.source}",
            item.line,
            item.source,
        )
        for item in evaluation.seeds
        if (own := asked.get(question_of(item.seed))) is not None
    ]


def check_lengths(items: SeedSet, *, tokens: Tokens, template: Template, max_tokens: int) -> list[Problem]:
    """Items longer than ``max_tokens`` with the template around them; none while the tokenizer is not there."""
    try:
        return [problem for placed in items.seeds for problem in _length(placed, tokens, template, max_tokens)]
    except NotReady:
        return []


def refuse(problems: Iterable[Problem]) -> None:
    """Raise InvalidInput if there is a problem."""
    if told := in_order(problems):
        raise InvalidInput(told)


def in_order(problems: Iterable[Problem]) -> Sequence[Problem]:
    """The first ``MAX_PROBLEMS`` by line, and how many more."""
    told: Sequence[Problem] = sorted(problems, key=lambda problem: (problem.source or "", problem.line or 0))
    if len(told) <= MAX_PROBLEMS:
        return told
    return [*told[:MAX_PROBLEMS], Problem("problems", f"and {len(told) - MAX_PROBLEMS:,} more problems like these")]


def _length(placed: PlacedSeed, tokens: Tokens, template: Template, max_tokens: int) -> Iterator[Problem]:
    seed = placed.seed
    text = template.render(seed.instruction, seed.input) + seed.output
    if len(text.encode()) < max_tokens:  # a token is at least one byte: no need to count
        return
    number = tokens.count(text) + 1  # the end-of-sequence token
    if number > max_tokens:
        reason = f"is {number:,} tokens long with its template; the recipe's max_length is {max_tokens:,}"
        yield Problem("item", reason, placed.line, placed.source)
