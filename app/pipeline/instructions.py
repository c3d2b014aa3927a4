"""Seeds → raw replies with new instructions and inputs, written by the base (paper §2; App. C; Table 6)."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from app.core.errors import Fault, StageFailed
from app.core.ports import TextGenerator
from app.core.recipe import Recipe
from app.core.records import Candidate, Completion, GenerationRequest, Rejection, Reply, Seed
from app.pipeline.acceptance import Acceptance
from app.pipeline.ahead import answered
from app.pipeline.bench import ROWS, WAVE, Bench, fits_base
from app.pipeline.cut_texts import cut_texts
from app.pipeline.prompts import Fits, always_fits, anchored_prompt, label_of, list_prompt, shorten, varying_texts
from app.pipeline.rows import from_row, to_row
from app.pipeline.trust import seeds_to_write_for, trusted_seeds
from app.pipeline.turns import prompt_of
from app.pipeline.validity import is_closed
from app.pipeline.yields import YieldMeter

REPLIES, REJECTIONS = "replies.jsonl", "rejections.jsonl"

_BLANK_LINE = re.compile(r"\n\s*\n")


def make_instructions(bench: Bench) -> None:
    """Raw replies wave by wave; what is accepted follows from them. Raises StageFailed where hardly anything is."""
    _tell_of_cut_texts(bench)
    acceptance = Acceptance(bench.split.training, recipe=bench.recipe)
    meter = YieldMeter(bench.recipe)
    for file in (ROWS, REJECTIONS):  # they follow from the replies, so they are made anew
        bench.write(file, [])
    bench.progress(0, bench.recipe.pool_size)
    with closing(_waves(bench, lambda: _needs_more(acceptance, meter, bench.recipe))) as waves:
        _judge(bench, waves, acceptance, meter)
    told = f"{meter.num_accepted} of {meter.num_written} written items accepted from {meter.num_prompts} prompts"
    bench.tell("instructions_judged", told, data=meter.figures(), is_warning=not acceptance.is_full)


def _needs_more(acceptance: Acceptance, meter: YieldMeter, recipe: Recipe) -> bool:
    """Whether another wave than the one being written will be needed, at the yield so far; before any, at the best."""
    a_prompt = 1.0 if recipe.prompt_style == "anchored" else float(recipe.tasks_per_prompt)
    if meter.num_prompts:
        a_prompt = acceptance.num_accepted / meter.num_prompts
    return acceptance.num_accepted + WAVE * a_prompt < recipe.pool_size


def _judge(bench: Bench, waves: Iterator[Wave], acceptance: Acceptance, meter: YieldMeter) -> None:
    """Until enough is accepted."""
    while not acceptance.is_full and (wave := next(waves, None)):
        results = [acceptance.read(reply) for reply in wave.replies]
        for reply, judged in zip(wave.replies, results, strict=True):
            meter.read(reply, judged)
        meter.seconds += wave.seconds
        meter.num_read = acceptance.num_read
        written = [result for judged in results for result in judged]
        bench.append(ROWS, [to_row(result) for result in written if isinstance(result, Candidate)])
        bench.append(REJECTIONS, [to_row(result) for result in written if isinstance(result, Rejection)])
        bench.progress(acceptance.num_accepted, bench.recipe.pool_size, detail=meter.figures())
        _check_yield(bench, meter)


@dataclass(frozen=True, slots=True)
class Wave:
    """Replies that were asked for together; ``seconds`` that were waited for them, 0 of an earlier attempt's."""

    replies: list[Reply]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Shown:
    """One prompt, and what it was made from. ``task``: what it is anchored to; None for a list."""

    index: int  # of the reply that it is asked for
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
    """What the job's reply number ``index`` is asked for with: a function of the recipe's seed and the index alone.

    ``recipe.replies_per_prompt`` have the same prompt, which the engine then reads once.
    Where the seeds are of several domains it shows one domain's and names that; the domains take turns. It shows fewer
    seeds, one at least, where ``fits`` says that the prompt is too long for the base.
    """
    number = prompt_of(index, seeds, recipe)
    chance = random.Random(f"{recipe.seed}/instruction/{number}")
    domains = sorted({seed.domain for seed in seeds})
    turn, place = divmod(number, len(domains))
    own = [seed for seed in seeds if seed.domain == domains[place]]
    named, told = domains[place] or domain, "" if domains[place] else description
    anchor = _anchor(turn, own, label_first=recipe.label_first) if recipe.prompt_style == "anchored" else None
    task, choice = (anchor.task, anchor.seeds) if anchor else (None, own)

    def make(shown: Sequence[Seed]) -> str:
        if anchor:
            return anchored_prompt(named, shown, description=told, language=recipe.language, answer=anchor.label)
        return list_prompt(named, shown, num_tasks=recipe.tasks_per_prompt, description=told, language=recipe.language)

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
    asks_ahead: Callable[[], bool] = lambda: True,
) -> Generator[Wave]:
    """Waves of raw replies from reply ``start`` on, until ``max_prompts``; the caller stops when it has enough.

    Without seeds there are none.

    ``asks_ahead``: as ``answered`` has it.
    """

    def waves() -> Iterator[tuple[list[Shown], list[GenerationRequest]]]:
        for first in range(start, recipe.max_prompts if seeds else 0, WAVE):
            last = min(first + WAVE, recipe.max_prompts)
            prompts = [
                prompt_at(index, seeds, recipe=recipe, domain=domain, description=description, fits=fits)
                for index in range(first, last)
            ]
            yield prompts, [_request(shown, recipe, writer) for shown in prompts]

    began = time.monotonic()
    with closing(answered(waves(), generator, asks_ahead=asks_ahead)) as found:
        for prompts, answers in found:
            seconds = time.monotonic() - began
            yield Wave([_reply(shown, answer) for shown, answer in zip(prompts, answers, strict=True)], seconds)
            began = time.monotonic()


def _waves(bench: Bench, asks_ahead: Callable[[], bool]) -> Generator[Wave]:
    """What a killed attempt left, then new ones, each on disk before it is judged."""
    num_kept = 0
    kept = bench.kept(REPLIES, unit=WAVE)
    while replies := [from_row(Reply, row) for row in islice(kept, WAVE)]:
        num_kept += len(replies)
        yield Wave(replies)
    writer = next(iter(bench.writers()), None)
    for wave in write_replies(
        seeds_to_write_for(bench),
        recipe=bench.recipe,
        domain=bench.domain,
        description=bench.description,
        start=num_kept,
        generator=bench.engine,
        fits=fits_base(bench, bench.recipe.instruction_max_new_tokens),
        writer=writer.id if writer else None,
        asks_ahead=asks_ahead,
    ):
        bench.append(REPLIES, map(to_row, wave.replies))
        yield wave


def _tell_of_cut_texts(bench: Bench) -> None:
    limit = bench.recipe.instruction_max_new_tokens
    cut = cut_texts(trusted_seeds(bench), recipe=bench.recipe, count=bench.engine.count)
    if cut:
        listed = ", ".join(f"{task} ({tokens:,})" for (_, task), tokens in cut.items())
        told = f"half of the texts have so many tokens or more, new ones are cut off at {limit:,}: {listed}"
        bench.tell("texts_cut_off", told, data={"limit": limit, "tasks": [name for _, name in cut]}, is_warning=True)


def _check_yield(bench: Bench, meter: YieldMeter) -> None:
    """What was accepted so far is in the stage's files when this raises."""
    if fault := meter.fault():
        data = {**meter.figures(), "samples": meter.samples()}
        bench.tell("yield_too_low", f"{meter.num_accepted} of {meter.num_written} items accepted", data=data)
        raise StageFailed(bench.stage.name, fault, fault=Fault.USER, param="recipe.min_yield", is_worth_keeping=True)


@dataclass(frozen=True, slots=True)
class _Anchor:
    """What an anchored prompt is about; ``label``: the answer that the new input is written for."""

    task: str
    seeds: list[Seed]
    label: str | None = None


def _anchor(turn: int, seeds: Sequence[Seed], *, label_first: bool) -> _Anchor:
    """The tasks take turns, and with ``label_first`` the labels of each.

    Of a task, seeds with an input if it has any: a seed without one shows nothing new.
    """
    tasks = sorted({seed.task for seed in seeds})
    turn, place = divmod(turn, len(tasks))
    own = [seed for seed in seeds if seed.task == tasks[place]]
    choice = [seed for seed in own if seed.input] or own
    if not (label_first and is_closed(own)):
        return _Anchor(tasks[place], choice)
    labels = sorted({seed.output for seed in choice})
    label = labels[turn % len(labels)]
    return _Anchor(tasks[place], [seed for seed in choice if seed.output == label], label)


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
