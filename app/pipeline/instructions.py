"""Seeds → raw replies with new instructions and inputs, written by the base (paper §2; App. C; Table 6)."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from app.core.ports import TextGenerator
from app.core.recipe import Recipe
from app.core.records import Completion, GenerationRequest, Reply, Seed
from app.pipeline.acceptance import Acceptance
from app.pipeline.bench import ROWS, WAVE, Bench, count_reasons, fits_base
from app.pipeline.prompts import Fits, always_fits, anchored_prompt, label_of, list_prompt, shorten, varying_texts
from app.pipeline.rows import from_row, to_row

REPLIES, REJECTIONS = "replies.jsonl", "rejections.jsonl"

_BLANK_LINE = re.compile(r"\n\s*\n")


def make_instructions(bench: Bench) -> None:
    """Raw replies wave by wave; what is accepted follows from them."""
    recipe, seeds = bench.recipe, bench.split.training
    acceptance = Acceptance(seeds, recipe=recipe)
    replies = [from_row(Reply, row) for row in bench.kept(REPLIES, unit=WAVE)]
    for reply in replies:
        acceptance.read(reply)
    bench.progress(len(acceptance.accepted), recipe.pool_size)
    waves = write_replies(
        seeds,
        recipe=recipe,
        domain=bench.domain,
        description=bench.description,
        start=len(replies),
        generator=bench.engine,
        fits=fits_base(bench, recipe.instruction_max_new_tokens),
        writer=writer.id if (writer := bench.writer()) else None,
    )
    while not acceptance.is_full and (wave := next(waves, None)):
        bench.append(REPLIES, map(to_row, wave))
        replies += wave
        for reply in wave:
            acceptance.read(reply)
        bench.progress(len(acceptance.accepted), recipe.pool_size)
    bench.write(ROWS, map(to_row, acceptance.accepted))
    bench.write(REJECTIONS, map(to_row, acceptance.rejected))
    _tell_yield(bench, acceptance, replies)


@dataclass(frozen=True, slots=True)
class Shown:
    """One prompt, and what it was made from. ``task``: what it is anchored to; None for a list."""

    index: int
    prompt: str
    seeds: tuple[Seed, ...]
    task: str | None
    stop: tuple[str, ...]


def prompt_at(
    index: int,
    seeds: Sequence[Seed],
    *,
    recipe: Recipe,
    domain: str,
    description: str = "",
    fits: Fits = always_fits,
) -> Shown:
    """The job's prompt number ``index``: a function of the recipe's seed and the index alone.

    It shows fewer seeds, one at least, where ``fits`` says that the prompt is too long for the base.
    """
    chance = random.Random(f"{recipe.seed}/instruction/{index}")
    if recipe.prompt_style == "anchored":
        task, choice = _anchor(index, seeds)
        make = partial(anchored_prompt, domain, description=description)
    else:
        task, choice = None, list(seeds)
        make = partial(list_prompt, domain, num_tasks=recipe.tasks_per_prompt, description=description)
    drawn = chance.sample(choice, min(recipe.seeds_per_prompt, len(choice)))
    shown = tuple(shorten(drawn, make, fits=fits, least=1))
    stop = (f"\n{recipe.tasks_per_prompt + 1}. ",) if task is None else _ends_of_text(shown)
    return Shown(index, make(shown), shown, task, stop)


def write_replies(
    seeds: Sequence[Seed],
    *,
    recipe: Recipe,
    domain: str,
    description: str,
    start: int,
    generator: TextGenerator,
    fits: Fits = always_fits,
    writer: str | None = None,
) -> Iterator[list[Reply]]:
    """Waves of raw replies from prompt ``start`` on, until ``max_prompts``; the caller stops when it has enough."""
    for first in range(start, recipe.max_prompts, WAVE):
        last = min(first + WAVE, recipe.max_prompts)
        wave = [
            prompt_at(index, seeds, recipe=recipe, domain=domain, description=description, fits=fits)
            for index in range(first, last)
        ]
        answers = generator.generate([_request(shown, recipe, writer) for shown in wave])
        yield [_reply(shown, answer) for shown, answer in zip(wave, answers, strict=True)]


def _anchor(index: int, seeds: Sequence[Seed]) -> tuple[str, list[Seed]]:
    """The tasks take turns. Of a task, seeds with an input if it has any: a seed without one shows nothing new."""
    tasks = sorted({seed.task for seed in seeds})
    task = tasks[index % len(tasks)]
    own = [seed for seed in seeds if seed.task == task]
    return task, [seed for seed in own if seed.input] or own


def _ends_of_text(shown: Sequence[Seed]) -> tuple[str, ...]:
    """A new text ends where the next would begin, and at a blank line unless the seeds' own texts have some."""
    next_one = f"\n{label_of(shown)} {len(shown) + 2}:"
    has_blank_lines = any(_BLANK_LINE.search(text) for text in varying_texts(shown))
    return (next_one,) if has_blank_lines else (next_one, "\n\n")


def _request(shown: Shown, recipe: Recipe, writer: str | None) -> GenerationRequest:
    return GenerationRequest(
        prompt=shown.prompt,
        adapter=writer,
        max_new_tokens=recipe.instruction_max_new_tokens,
        temperature=recipe.instruction_temperature,
        top_p=recipe.instruction_top_p,
        seed=random.Random(f"{recipe.seed}/reply/{shown.index}").getrandbits(31),
        stop=shown.stop,
    )


def _reply(shown: Shown, answer: Completion) -> Reply:
    ids = tuple(seed.id for seed in shown.seeds)
    return Reply(
        shown.index,
        ids,
        shown.task,
        answer.text,
        answer.finish_reason,
        answer.completion_tokens,
        prompt=shown.prompt,
        generator=answer.adapter or "base",
    )


def _tell_yield(bench: Bench, acceptance: Acceptance, replies: Sequence[Reply]) -> None:
    num_accepted, rejected = len(acceptance.accepted), acceptance.rejected
    data = {
        "prompts": len(replies),
        "tokens": sum(reply.num_tokens for reply in replies),
        "accepted": num_accepted,
        "rejected": count_reasons(rejected),
    }
    told = f"{num_accepted} of {num_accepted + len(rejected)} written items accepted from {len(replies)} prompts"
    bench.tell("instructions_judged", told, data=data, is_warning=not acceptance.is_full)
