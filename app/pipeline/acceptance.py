"""Items → candidates: which of the written items are kept, and why the others are not (paper: Self-Instruct's rules).

What is accepted is a pure function of the replies in their order, so a killed job replays them and goes on. No rule is
stricter than the seeds that were shown, but for the words that the recipe blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from app.core.recipe import Recipe
from app.core.records import Candidate, Check, Rejection, Reply, Seed
from app.pipeline.language import LanguageCheck
from app.pipeline.novelty import NoveltyFilter
from app.pipeline.prompts import varying_texts
from app.pipeline.replies import Item, read_anchored, read_list
from app.pipeline.rouge import words_for
from app.pipeline.validity import Rules, is_closed

_FIELD = r"(?:name|text|input|company|amount|date|number)s?"  # what a writer leaves for others to fill in
_PLACEHOLDER = re.compile(
    rf"[\[<{{] *(?:(?:insert|enter|paste|your)\b[^\]>}}\n]{{0,60}}|(?!the )(?:\w+ ){{0,2}}{_FIELD}(?: ?\d+)?) *[\]>}}]"
    r"|lorem ipsum",
    re.IGNORECASE,
)
_NOTHING = re.compile(r"\W*(?:n/?a|none|null|noinput|no input|tbd|x{3,})?\W*", re.IGNORECASE)


def is_placeholder(text: str) -> bool:
    """True if a text stands for one that was not written: "[company name]", "<insert text here>", "N/A"."""
    return _placeholder_in(text) is not None


class Acceptance:
    """Reads replies in order and keeps what is well-formed and new. It holds what new texts must differ from."""

    def __init__(self, seeds: Sequence[Seed], *, recipe: Recipe) -> None:
        """Raises InvalidInput for a language that nobody knows."""
        self.num_accepted = 0
        self.num_read = 0  # replies, until there was enough
        self._recipe = recipe
        self._by_id = {seed.id: seed for seed in seeds}
        self._labelled = _closed_tasks(seeds) if recipe.label_first else frozenset()
        self._rules = Rules(seeds, is_strict=recipe.validity == "strict")
        self._language = LanguageCheck(recipe.language)
        self._blocked = _any_of(recipe.blocked_words)
        self._novelty = NoveltyFilter(recipe.novelty_threshold, words=words_for(recipe.language))
        is_anchored = recipe.prompt_style == "anchored"
        texts = varying_texts(seeds) if is_anchored else [f"{seed.instruction}\n{seed.input}" for seed in seeds]
        for seed, text in zip(seeds, texts, strict=True):
            self._novelty.add(text, f"seed {seed.id}")

    @property
    def is_full(self) -> bool:
        return self.num_accepted >= self._recipe.pool_size

    def read(self, reply: Reply) -> list[Candidate | Rejection]:
        """What a reply holds, judged, in its order; nothing more once there is enough."""
        self.num_read += not self.is_full
        shown = [self._by_id[seed_id] for seed_id in reply.seed_ids]
        items: Iterable[Item] = read_list(reply)
        if reply.task is not None:
            items = [read_anchored(reply, shown, may_cut=self._rules.lists_findings(reply.task))]
        results: list[Candidate | Rejection] = []
        for item in items:
            if self.is_full:
                break
            results.append(self._judge(item, reply, shown))
        return results

    def _judge(self, item: Item, reply: Reply, shown: Sequence[Seed]) -> Candidate | Rejection:
        if item.fault:
            return Rejection(item.fault, reply.index, item.position, item.text)
        written, passed = _written(item, reply), []
        for check in self._checks(item, reply.task, shown, written):
            if not check.is_passed:
                return Rejection(check.name, reply.index, item.position, item.text, check.detail)
            passed.append(check)
        output = shown[0].output if reply.task in self._labelled else None  # all that were shown have the same
        candidate = replace(_candidate(item, reply, shown, passed), output=output)
        self._novelty.add("\n".join(written), f"item {candidate.id}")
        self.num_accepted += 1
        return candidate

    def _checks(self, item: Item, task: str | None, shown: Sequence[Seed], written: Sequence[str]) -> Iterator[Check]:
        """Every filter's verdict, named by what it would refuse. ``written``: what the generator wrote of the item."""
        yield Check("no_input", bool(item.input) or not all(seed.input for seed in shown))
        fewest, limit = self._limits(shown, written)
        num_words, most_words = len(written[0].split()), max(len(text.split()) for text in written)
        yield Check("too_short", num_words >= fewest, num_words, f"at least {fewest} words")
        yield Check("too_long", most_words <= limit, most_words, f"at most {limit} words")
        left_open = _first_placeholder(written)
        is_usual = left_open is None or _first_placeholder(varying_texts(shown)) is not None  # anonymised texts
        yield Check("placeholder", is_usual, detail=left_open or "")
        yield Check("input_equals_instruction", item.input.casefold() != item.instruction.casefold())
        text = "\n".join(written)
        blocked = self._blocked.search(text) if self._blocked else None
        yield Check("blocked_word", blocked is None, detail=blocked[0] if blocked else "")
        yield self._language_check(text, shown)
        if task is not None and (fault := self._rules.fault_of_input(task, written[0])) is not None:
            yield Check(fault, False)
        likeness = self._novelty.judge(text)
        detail = f"ROUGE-L {likeness.score:.3f} with {likeness.name}" if likeness.name else ""
        yield Check("near_duplicate", likeness.is_new, round(likeness.score, 4), detail)

    def _language_check(self, text: str, shown: Sequence[Seed]) -> Check:
        """Passed too where the seeds themselves are in another language than the recipe's: then that one is meant."""
        other = self._language.other_language(text)
        texts = [text for seed in shown for text in (seed.instruction, seed.input) if text]
        if other is None or any(self._language.other_language(text) for text in texts):
            return Check("wrong_language", True)
        code, probability = other
        return Check("wrong_language", False, round(probability, 4), f"{code}, not {self._recipe.language}")

    def _limits(self, shown: Sequence[Seed], written: Sequence[str]) -> tuple[int, int]:
        """The fewest and the most words: the recipe's, or what the seeds that were shown have beyond those."""
        texts = varying_texts(shown) if len(written) == 1 else [seed.instruction for seed in shown]
        longest = max(len(text.split()) for seed in shown for text in (seed.instruction, seed.input))
        fewest = min(self._recipe.min_words, *(len(text.split()) for text in texts))
        return fewest, max(self._recipe.max_words, longest)


def _closed_tasks(seeds: Sequence[Seed]) -> frozenset[str]:
    """Tasks whose answers are a few labels."""
    by_task: dict[str, list[Seed]] = {}
    for seed in seeds:
        by_task.setdefault(seed.task, []).append(seed)
    return frozenset(task for task, own in by_task.items() if is_closed(own))


def _placeholder_in(text: str) -> str | None:
    found = _PLACEHOLDER.search(text) or _NOTHING.fullmatch(text)
    return found[0] if found else None


def _first_placeholder(texts: Iterable[str]) -> str | None:
    return next((found for text in texts if text and (found := _placeholder_in(text)) is not None), None)


def _any_of(blocked: Iterable[str]) -> re.Pattern[str] | None:
    """Matches any of the words, or words in a row, whole and in any case; None if there are none."""
    phrases = [r"\s+".join(re.escape(word) for word in phrase.split()) for phrase in blocked if phrase.strip()]
    return re.compile(rf"(?<!\w)(?:{'|'.join(phrases)})(?!\w)", re.IGNORECASE) if phrases else None


def _written(item: Item, reply: Reply) -> tuple[str, ...]:
    """The texts that must be new: an anchored reply wrote only one, the rest of its item is the seed's."""
    if reply.task is None:
        return item.instruction, item.input
    return (item.input or item.instruction,)


def _candidate(item: Item, reply: Reply, shown: Sequence[Seed], checks: Sequence[Check]) -> Candidate:
    return Candidate(
        item.instruction,
        item.input,
        reply.task,
        reply.index,
        item.position,
        reply.seed_ids,
        domain=shown[0].domain,
        generator=reply.generator,
        checks=tuple(checks),
    )
