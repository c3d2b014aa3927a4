"""Seeds → new instructions with inputs, written by the base (paper §2; App. C; Table 6).

What is accepted is a pure function of the replies in their order, so a killed job replays them and goes on.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from app.core.ports import TextGenerator
from app.core.recipe import Recipe
from app.core.records import Candidate, Completion, GenerationRequest, Rejection, Reply, Seed
from app.pipeline.novelty import NoveltyFilter
from app.pipeline.prompts import anchored_prompt, list_prompt

PROMPTS_PER_WAVE = 32  # prompts sent together; fixed, because what shares a batch may change the last bits of a logit

_INSTRUCTION = re.compile(r"^(\d+)\. Instruction:[ \t]*", re.MULTILINE)
_PLACEHOLDER = re.compile(
    r"\[[^\]]*(?:insert|your|name|text|company)[^\]]*\]|<[^>]*(?:input|text|insert)[^>]*>|lorem ipsum|\bN/A\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Shown:
    """One prompt, and what it was made from."""

    index: int
    prompt: str
    seeds: tuple[Seed, ...]
    task: str | None


@dataclass(slots=True)
class Pool:
    """What the replies so far gave."""

    accepted: list[Candidate] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)


def prompt_at(index: int, seeds: Sequence[Seed], *, recipe: Recipe, domain: str, description: str = "") -> Shown:
    """The job's prompt number ``index``: a function of the recipe's seed and the index alone."""
    chance = random.Random(f"{recipe.seed}/instruction/{index}")
    if recipe.prompt_style == "list":
        shown = chance.sample(list(seeds), min(recipe.seeds_per_prompt, len(seeds)))
        text = list_prompt(domain, shown, num_tasks=recipe.tasks_per_prompt, description=description)
        return Shown(index, text, tuple(shown), None)
    tasks = sorted({seed.task for seed in seeds})
    task = tasks[index % len(tasks)]
    own = [seed for seed in seeds if seed.task == task]
    shown = chance.sample(own, min(recipe.seeds_per_prompt, len(own)))
    return Shown(index, anchored_prompt(domain, shown, description=description), tuple(shown), task)


def write_replies(
    seeds: Sequence[Seed], *, recipe: Recipe, domain: str, description: str, start: int, generator: TextGenerator
) -> Iterator[list[Reply]]:
    """Waves of raw replies from prompt ``start`` on, until ``max_prompts``; the caller stops when it has enough."""
    for first in range(start, recipe.max_prompts, PROMPTS_PER_WAVE):
        last = min(first + PROMPTS_PER_WAVE, recipe.max_prompts)
        wave = [
            prompt_at(index, seeds, recipe=recipe, domain=domain, description=description)
            for index in range(first, last)
        ]
        answers = generator.generate([_request(shown, recipe) for shown in wave])
        yield [_reply(shown, answer) for shown, answer in zip(wave, answers, strict=True)]


class Acceptance:
    """Reads replies in order and keeps what is well-formed and new."""

    def __init__(self, seeds: Sequence[Seed], *, recipe: Recipe) -> None:
        self.pool = Pool()
        self._recipe = recipe
        self._by_id = {seed.id: seed for seed in seeds}
        self._novelty = NoveltyFilter(recipe.novelty_threshold)
        for seed in seeds:
            self._novelty.add(_joined(seed.instruction, seed.input))

    @property
    def num_accepted(self) -> int:
        return len(self.pool.accepted)

    @property
    def is_full(self) -> bool:
        return self.num_accepted >= self._recipe.num_examples

    def read(self, reply: Reply) -> None:
        """Take what a reply holds; nothing more once the pool is full."""
        for candidate, text in self._items(reply):
            if self.is_full:
                return
            reason = "unparsable" if candidate is None else self._fault(candidate)
            if candidate is not None and reason is None:
                self._novelty.add(_joined(candidate.instruction, candidate.input))
                self.pool.accepted.append(candidate)
            else:
                item = candidate.item if candidate else 0
                self.pool.rejected.append(Rejection(reason or "unparsable", reply.index, item, text))

    def _items(self, reply: Reply) -> Iterator[tuple[Candidate | None, str]]:
        if reply.task is None:
            yield from parse_list(reply)
        else:
            yield parse_anchored(reply, self._by_id[reply.seed_ids[0]].instruction), reply.text

    def _fault(self, candidate: Candidate) -> str | None:
        """Why a well-formed item is not kept, or None."""
        recipe, words = self._recipe, len(candidate.instruction.split())
        length = len(candidate.input.split())
        if min(words, length) < recipe.min_words:
            return "too_short"
        if max(words, length) > recipe.max_words:
            return "too_long"
        if _PLACEHOLDER.search(candidate.input):
            return "placeholder"
        if candidate.input.casefold() == candidate.instruction.casefold():
            return "input_equals_instruction"
        if not self._novelty.is_new(_joined(candidate.instruction, candidate.input)):
            return "near_duplicate"
        return None


def parse_list(reply: Reply) -> Iterator[tuple[Candidate | None, str]]:
    """Items of a numbered-list reply; the prompt ended at "N. Instruction:", and each number must have its input.

    A reply cut at its token limit loses its last item. Text that breaks the numbering yields (None, text).
    """
    number = len(reply.seed_ids) + 1
    text = f"{number}. Instruction: {reply.text.strip()}"
    marks = list(_INSTRUCTION.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    blocks = [(int(mark[1]), text[mark.end() : end]) for mark, end in zip(marks, ends, strict=True)]
    if reply.finish_reason == "length":
        blocks = blocks[:-1]
    for item, (found, block) in enumerate(blocks):
        instruction, marker, input = block.partition(f"\n{found}. Input:")
        if found != number + item or not marker or re.search(r"^\d+\. (?:Instruction|Input):", input, re.MULTILINE):
            yield None, block
        else:
            yield _candidate(reply, item, instruction, input, task=None), block
    if not blocks:
        yield None, reply.text


def parse_anchored(reply: Reply, instruction: str) -> Candidate | None:
    """The one new input of an anchored reply; None where it was cut off or names the next text's marker."""
    if reply.finish_reason == "length" or "Text " in reply.text.split("\n")[0][:6]:
        return None
    return _candidate(reply, 0, instruction, reply.text, task=reply.task)


def _candidate(reply: Reply, item: int, instruction: str, input: str, *, task: str | None) -> Candidate:
    return Candidate(" ".join(instruction.split()), input.strip(), task, reply.index, item, reply.seed_ids)


def _request(shown: Shown, recipe: Recipe) -> GenerationRequest:
    last = f"\n{recipe.tasks_per_prompt + 1}. "
    return GenerationRequest(
        prompt=shown.prompt,
        max_new_tokens=recipe.instruction_max_new_tokens,
        temperature=recipe.instruction_temperature,
        top_p=recipe.instruction_top_p,
        seed=random.Random(f"{recipe.seed}/reply/{shown.index}").getrandbits(31),
        stop=(last,) if shown.task is None else ("\n\n",),
    )


def _reply(shown: Shown, answer: Completion) -> Reply:
    ids = tuple(seed.id for seed in shown.seeds)
    return Reply(shown.index, ids, shown.task, answer.text, answer.finish_reason, answer.completion_tokens)


def _joined(instruction: str, input: str) -> str:
    return f"{instruction}\n{input}"
