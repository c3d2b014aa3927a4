"""How a task is asked, and which of its answers is kept (paper §2; App. C: no demonstrations).

Where an adapter answers, it is asked through the template it learned. Of several answers to one task, by several
writers, behind several draws of demonstrations or sampled, the one most like the others is kept.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain, count, islice
from operator import itemgetter

from app.core.ports import TextGenerator
from app.core.recipe import Recipe
from app.core.records import (
    Answer,
    Candidate,
    Check,
    Completion,
    Example,
    GenerationRequest,
    Origin,
    Rejection,
    Seed,
)
from app.pipeline.agreement import most_agreed
from app.pipeline.ahead import answered
from app.pipeline.bench import WAVE, Bench, fits_base
from app.pipeline.prompts import Fits, always_fits, response_prompt, shorten
from app.pipeline.retrieval import PassageAnswers, retrieval_checks
from app.pipeline.rows import to_row
from app.pipeline.template import ALPACA
from app.pipeline.turns import prompt_of
from app.pipeline.validity import Rules

ANSWERS = "answers.jsonl"  # of a stage that has candidates answered, one a candidate

_Requests = Sequence[Sequence[GenerationRequest]]  # of each candidate
_Asked = tuple[Sequence[Candidate], _Requests, list[int]]  # and the order in which all are sent


def answer_all(
    bench: Bench, candidates: Iterable[Candidate], *, total: int, seeds: Sequence[Seed], rules: Rules
) -> None:
    """Have each of the ``total`` candidates answered that ``ANSWERS`` does not hold yet, by whoever answers here.

    ``seeds``: those that may be shown.
    """
    done = sum(1 for _ in bench.kept(ANSWERS, unit=WAVE))
    tokens = 0  # written in this attempt, of the answers that were chosen
    bench.progress(done, total)
    a_task = bench.recipe.count_answers(len(bench.writers()))
    told = count(done * a_task + 1)

    def on_answer() -> None:
        bench.progress(min(total, next(told) // a_task), total)

    left = islice(candidates, done, None)
    with closing(_write(bench, left, seeds=seeds, rules=rules, on_answer=on_answer)) as written:
        for answers in written:
            bench.append(ANSWERS, map(to_row, answers))
            done += len(answers)
            tokens += sum(answer.num_tokens for answer in answers)
            bench.progress(done, total, detail={"tokens": tokens})


def _write(
    bench: Bench,
    candidates: Iterator[Candidate],
    *,
    seeds: Sequence[Seed],
    rules: Rules,
    on_answer: Callable[[], None],
) -> Generator[list[Answer]]:
    """Waves of answers, one a candidate."""
    ask = partial(
        request_answers,
        seeds=seeds,
        recipe=bench.recipe,
        domain=bench.domain,
        description=bench.description,
        fits=fits_base(bench, bench.recipe.response_max_new_tokens),
        writers=[place.id for place in bench.writers()],
    )
    waves = _waves(candidates, ask)
    if (passages := PassageAnswers.of(bench)) is not None:
        for wave, requests in waves:
            yield passages.write(wave, [asked for [asked] in requests])
    else:
        yield from draw_answers(waves, rules=rules, generator=bench.engine, on_answer=on_answer)


def _waves(
    candidates: Iterator[Candidate], ask: Callable[[Candidate], list[GenerationRequest]]
) -> Iterator[tuple[list[Candidate], list[list[GenerationRequest]]]]:
    while wave := list(islice(candidates, WAVE)):
        yield wave, list(map(ask, wave))


def request_answers(
    candidate: Candidate,
    *,
    seeds: Sequence[Seed],
    recipe: Recipe,
    domain: str,
    description: str = "",
    fits: Fits = always_fits,
    writers: Sequence[str] = (),
) -> list[GenerationRequest]:
    """All that is asked for one candidate: of every writer (an adapter's id; none: the base) ``response_samples``
    answers behind each different draw of demonstrations.

    Where ``responders_join`` the base gives one behind each draw, and the writers theirs without demonstrations.
    A function of the recipe's seed and the candidate alone. Several draws are a task's, so that the engine reads each
    once; a single one is the prompt's that the candidate came of. A seed that asks the very same is never shown.
    """
    own = [seed for seed in seeds if seed.task == candidate.task]
    told = "" if candidate.domain else description
    stop = tuple(text for text in recipe.evaluation_stop if not any(text in seed.output for seed in own))

    def make(writer: str | None, shots: Sequence[Seed]) -> str:
        if writer is not None:
            return ALPACA.render(candidate.instruction, candidate.input, shown=shots)
        named = candidate.domain or domain
        return response_prompt(named, candidate.instruction, candidate.input, shots=shots, description=told)

    def ask(writer: str | None, draws: Iterable[Sequence[Seed]], times: int) -> Iterator[GenerationRequest]:
        for number, shown in enumerate(draws):
            request = GenerationRequest(
                prompt=make(writer, shorten(shown, partial(make, writer), fits=fits, least=0)),
                adapter=writer,
                max_new_tokens=recipe.response_max_new_tokens,
                temperature=recipe.response_temperature,
                seed=random.Random(f"{recipe.seed}/response/{candidate.id}/{number}").getrandbits(31),
                stop=(*stop, "\nInstruction:"),  # an answer may hold what the answers of its task's seeds hold
            )
            yield from _samples(request, times, temperature=recipe.response_sample_temperature)

    if recipe.response_draws == 1:
        names = [str(prompt_of(candidate.reply, seeds, recipe))]
    else:
        names = [f"{candidate.task}/{number}" for number in range(recipe.response_draws)]
    # of few seeds fewer
    draws = list(dict.fromkeys(_demonstrations(name, candidate, own or seeds, recipe) for name in names))
    if recipe.responders_join:
        joined = (ask(writer, [()], recipe.response_samples) for writer in writers)
        return list(chain(ask(None, draws, 1), *joined))
    return [request for writer in writers or (None,) for request in ask(writer, draws, recipe.response_samples)]


def _demonstrations(name: str, candidate: Candidate, seeds: Sequence[Seed], recipe: Recipe) -> tuple[Seed, ...]:
    """The draw of this name, in one order for all candidates: they are shown the same, as far as can be."""
    deck = random.Random(f"{recipe.seed}/shots/{name}").sample(seeds, len(seeds))
    asked = (candidate.instruction, candidate.input)
    return tuple(islice((seed for seed in deck if (seed.instruction, seed.input) != asked), recipe.response_shots))


def draw_answers(
    waves: Iterable[tuple[Sequence[Candidate], _Requests]],
    *,
    rules: Rules,
    generator: TextGenerator,
    on_answer: Callable[[], None] = lambda: None,
) -> Generator[list[Answer]]:
    """For each wave (candidates, and all requests of each) one answer a candidate: the only one, or of several the most
    agreed of those that the rules allow. ``on_answer`` is called as each request ends.
    """

    def drawn() -> Iterator[tuple[_Asked, list[GenerationRequest]]]:
        for candidates, requests in waves:
            everything = [request for asked in requests for request in asked]
            # prompts that begin alike follow each other: that beginning is read once, and need not be kept for long
            order = sorted(range(len(everything)), key=lambda at: (everything[at].adapter or "", everything[at].prompt))
            yield (candidates, requests, order), [everything[position] for position in order]

    with closing(answered(drawn(), generator, on_answer=on_answer)) as found:
        for (candidates, requests, order), completions in found:
            told = (completion for _, completion in sorted(zip(order, completions, strict=True), key=itemgetter(0)))
            yield [
                _choose(candidate, asked, list(islice(told, len(asked))), rules)
                for candidate, asked in zip(candidates, requests, strict=True)
            ]


def _choose(
    candidate: Candidate, requests: Sequence[GenerationRequest], samples: Sequence[Completion], rules: Rules
) -> Answer:
    texts = [tidy(sample.text) for sample in samples]
    ends = [sample.finish_reason for sample in samples]
    usable = [rules.allows(candidate, text, end) for text, end in zip(texts, ends, strict=True)]
    position, agreement = most_agreed(texts, usable)
    answer = Answer.of(samples[position], prompt=requests[position].prompt)
    if len(samples) == 1:
        return answer
    others = [sample for number, sample in enumerate(samples) if number != position]
    return replace(
        answer,
        samples=tuple(other.text for other in others),
        sample_generators=tuple(other.adapter or "base" for other in others),
        sample_finish_reasons=tuple(other.finish_reason for other in others),
        confidence=round(agreement, 6),
    )


def judge_answer(candidate: Candidate, answer: Answer, *, recipe: Recipe, rules: Rules) -> Example | Rejection:
    """An example, or the reason why this answer is none."""
    text = tidy(answer.text) if answer.merged is None else answer.merged
    checks = list(_checks(candidate, answer, text, recipe=recipe, rules=rules))
    failed = next((check for check in checks if not check.is_passed), None)
    if failed is not None:
        return Rejection(failed.name, candidate.reply, candidate.item, answer.text, failed.detail)
    return Example(
        id=candidate.id,
        instruction=candidate.instruction,
        input=candidate.input,
        output=text,
        task=candidate.task,
        origin=Origin.GENERATED,
        seed_ids=candidate.seed_ids,
        generator=answer.generator,
        reply=candidate.reply,
        item=candidate.item,
        domain=candidate.domain,
        checks=(*candidate.checks, *checks),
        passages=answer.passages,
        weight=answer.confidence if recipe.weigh_by_agreement and answer.confidence is not None else 1.0,
    )


def tidy(text: str) -> str:
    """An answer as it is learned: every kind of line end as a newline, nothing around it."""
    return "\n".join(text.splitlines()).strip()


def _samples(request: GenerationRequest, times: int, *, temperature: float) -> Iterator[GenerationRequest]:
    """The request itself, then the same at that temperature with seeds of their own."""
    yield request
    for number in range(1, times):
        seed = random.Random(f"{request.seed}/{number}").getrandbits(31)
        yield replace(request, temperature=temperature, seed=seed)


def _checks(candidate: Candidate, answer: Answer, text: str, *, recipe: Recipe, rules: Rules) -> Iterator[Check]:
    """Every filter's verdict, named by what it would refuse."""
    if answer.merged is None:
        yield Check("empty_response", bool(text))
        yield Check("truncated_response", answer.finish_reason != "length")
        yield Check("unfinished_response", not text.endswith(":"))
    else:
        yield Check("nothing_found", bool(text))
    echoed = text.casefold() in (candidate.input.casefold(), candidate.instruction.casefold())
    yield Check("echoes_prompt", not echoed)
    if answer.confidence is not None:
        yield Check("disagreement", answer.confidence >= recipe.min_agreement, answer.confidence)
    if candidate.output is not None:
        agrees = text.casefold() == candidate.output.casefold()
        yield Check("other_label", agrees, detail=f"the input was written for {candidate.output!r}")
    yield from rules.checks(candidate, text)
    yield from retrieval_checks(answer)
