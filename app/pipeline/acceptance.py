"""Items → candidates: which of the written items are kept, and why the others are not (paper: Self-Instruct's rules).

What is accepted is a pure function of the replies in their order, so a killed job replays them and goes on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from app.core.recipe import Recipe
from app.core.records import Candidate, Rejection, Reply, Seed
from app.pipeline.novelty import NoveltyFilter
from app.pipeline.prompts import varying_texts
from app.pipeline.replies import Item, read_anchored, read_list

_FIELD = r"(?:name|text|input|company|amount|date|number)s?"  # what a writer leaves for others to fill in
_PLACEHOLDER = re.compile(
    rf"[\[<{{] *(?:(?:insert|enter|paste|your)\b[^\]>}}\n]{{0,60}}|(?!the )(?:\w+ ){{0,2}}{_FIELD}(?: ?\d+)?) *[\]>}}]"
    r"|lorem ipsum",
    re.IGNORECASE,
)
_NOTHING = re.compile(r"\W*(?:n/?a|none|null|noinput|no input|tbd|x{3,})?\W*", re.IGNORECASE)


def is_placeholder(text: str) -> bool:
    """True if a text stands for one that was not written: "[company name]", "<insert text here>", "N/A"."""
    return bool(_PLACEHOLDER.search(text) or _NOTHING.fullmatch(text))


class Acceptance:
    """Reads replies in order and keeps what is well-formed and new."""

    def __init__(self, seeds: Sequence[Seed], *, recipe: Recipe) -> None:
        self.accepted: list[Candidate] = []
        self.rejected: list[Rejection] = []
        self._recipe = recipe
        self._by_id = {seed.id: seed for seed in seeds}
        self._novelty = NoveltyFilter(recipe.novelty_threshold)
        is_anchored = recipe.prompt_style == "anchored"
        for text in varying_texts(seeds) if is_anchored else [_both(seed.instruction, seed.input) for seed in seeds]:
            self._novelty.add(text)

    @property
    def is_full(self) -> bool:
        return len(self.accepted) >= self._recipe.pool_size

    def read(self, reply: Reply) -> None:
        """Take what a reply holds; nothing more once there is enough."""
        shown = [self._by_id[seed_id] for seed_id in reply.seed_ids]
        items: Iterable[Item] = read_list(reply) if reply.task is None else [read_anchored(reply, shown)]
        for item in items:
            if self.is_full:
                return
            written = _written(item, reply)
            if reason := item.fault or self._fault(item, shown, written):
                self.rejected.append(Rejection(reason, reply.index, item.position, item.text))
            else:
                self._novelty.add("\n".join(written))
                self.accepted.append(_candidate(item, reply))

    def _fault(self, item: Item, shown: Sequence[Seed], written: Sequence[str]) -> str | None:
        """Why a well-formed item is not kept, or None. ``written`` is what the generator wrote of it."""
        if not item.input and all(seed.input for seed in shown):
            return "no_input"
        if len(written[0].split()) < self._fewest_words(shown, written):
            return "too_short"
        if max(len(text.split()) for text in written) > self._recipe.max_words:
            return "too_long"
        if _has_placeholder(written) and not _has_placeholder(varying_texts(shown)):  # anonymised texts have them
            return "placeholder"
        if item.input.casefold() == item.instruction.casefold():
            return "input_equals_instruction"
        return None if self._novelty.is_new("\n".join(written)) else "near_duplicate"

    def _fewest_words(self, shown: Sequence[Seed], written: Sequence[str]) -> int:
        """The recipe's limit, or fewer where the seeds that were shown have fewer."""
        texts = varying_texts(shown) if len(written) == 1 else [seed.instruction for seed in shown]
        return min(self._recipe.min_words, *(len(text.split()) for text in texts))


def _has_placeholder(texts: Iterable[str]) -> bool:
    return any(text and is_placeholder(text) for text in texts)


def _written(item: Item, reply: Reply) -> tuple[str, ...]:
    """The texts that must be new: an anchored reply wrote only one, the rest of its item is the seed's."""
    if reply.task is None:
        return item.instruction, item.input
    return (item.input or item.instruction,)


def _candidate(item: Item, reply: Reply) -> Candidate:
    return Candidate(
        item.instruction,
        item.input,
        reply.task,
        reply.index,
        item.position,
        reply.seed_ids,
        generator=reply.generator,
    )


def _both(instruction: str, input: str) -> str:
    return f"{instruction}\n{input}"
