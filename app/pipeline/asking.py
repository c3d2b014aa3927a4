"""Items × lines × numbers of demonstrations → scored answers, in waves that a killed stage goes on from.

All lines of an item are asked in the same wave, greedily, with one token limit and one stop rule. Items of a task stand
together, so that prompts that begin alike follow each other and the engine computes the beginning once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count, islice

from app.core.recipe import Recipe
from app.core.records import Completion, GenerationRequest, Judged, Seed
from app.pipeline.ahead import answered
from app.pipeline.bench import WAVE, Bench
from app.pipeline.demonstrations import Demonstrations
from app.pipeline.lines import Contender
from app.pipeline.rows import to_row
from app.pipeline.scores import score_item

TOGETHER = 2 * WAVE  # answers of a wave; fixed as WAVE is


@dataclass(frozen=True, slots=True)
class Ask:
    """One item to be answered by one line. ``shown``: fewer than ``shots`` where the base can read no more."""

    item: Seed
    contender: Contender
    shots: int
    shown: tuple[Seed, ...]


def request_answer(prompt: str, adapter: str | None, recipe: Recipe) -> GenerationRequest:
    """How every line of an evaluation is asked: greedily, with one limit and one stop rule."""
    return GenerationRequest(
        prompt, adapter=adapter, max_new_tokens=recipe.evaluation_max_new_tokens, stop=recipe.evaluation_stop
    )


def by_task(items: Iterable[Seed]) -> list[Seed]:
    """Items of a task next to each other, tasks in the order of their first."""
    tasks: dict[str, list[Seed]] = {}
    for item in items:
        tasks.setdefault(item.task, []).append(item)
    return [item for task in tasks.values() for item in task]


def count_asks(num_items: int, contenders: Sequence[Contender]) -> int:
    """How many answers that makes."""
    return num_items * sum(len(contender.shots) for contender in contenders)


def make_asks(
    items: Sequence[Seed],
    contenders: Sequence[Contender],
    *,
    demonstrations: Demonstrations,
    fits: Callable[[str], bool],
) -> Iterator[Ask]:
    """By number of demonstrations, then item, then line; what an item is shown fits every line that is shown it."""
    for shots in sorted({shots for contender in contenders for shots in contender.shots}):
        asked = [contender for contender in contenders if shots in contender.shots]
        for item in items:
            shown = demonstrations.of(item.task, shots)
            while shown and not all(fits(_prompt(item, contender, shown)) for contender in asked):
                shown = shown[:-1]
            for contender in asked:
                yield Ask(item, contender, shots, shown)


def ask_all(bench: Bench, asks: Iterator[Ask], *, file: str, before: int = 0, total: int) -> None:
    """Have everything answered that ``file`` does not hold yet; ``before``: answers of other files, for the progress.

    A row is a ``Judged`` with the item's domain.
    """
    done = before + sum(1 for _ in bench.kept(file, unit=TOGETHER))
    bench.progress(done, total)

    def waves() -> Iterator[tuple[list[Ask], list[GenerationRequest]]]:
        waiting = islice(asks, done - before, None)
        while wave := list(islice(waiting, TOGETHER)):
            for place in {ask.contender.place: None for ask in wave}:
                if place is not None:
                    bench.engine.attach(place.id, place.folder)
            yield wave, [_request(ask, bench.recipe) for ask in wave]

    counter = count(done + 1)
    with closing(answered(waves(), bench.engine, on_answer=lambda: bench.progress(next(counter), total))) as found:
        for wave, completions in found:
            pairs = zip(wave, completions, strict=True)
            bench.append(file, [{**to_row(judge(*pair)), "domain": pair[0].item.domain} for pair in pairs])


def judge(ask: Ask, completion: Completion) -> Judged:
    """Score one line's answer to one item."""
    return Judged(
        ask.item.id,
        ask.item.task,
        ask.contender.line,
        ask.shots,
        completion.text,
        completion.finish_reason,
        score_item(completion.text, ask.item),
        num_shown=len(ask.shown),
        num_tokens=completion.completion_tokens,
        generator=completion.adapter or "base",
    )


def _request(ask: Ask, recipe: Recipe) -> GenerationRequest:
    return request_answer(_prompt(ask.item, ask.contender, ask.shown), ask.contender.adapter, recipe)


def _prompt(item: Seed, contender: Contender, shown: Sequence[Seed]) -> str:
    return contender.template.render(item.instruction, item.input, shown=shown)
