"""New instructions → examples: the base answers as an expert of the domain (paper §2; App. C: no demonstrations)."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from app.core.ports import TextGenerator
from app.core.recipe import Recipe
from app.core.records import Answer, Candidate, Example, GenerationRequest, Origin, Rejection, Seed
from app.pipeline.bench import ROWS, WAVE, Bench, count_reasons, fits_base
from app.pipeline.prompts import Fits, always_fits, response_prompt, shorten
from app.pipeline.rows import from_row, to_row

ANSWERS, REJECTIONS = "answers.jsonl", "rejections.jsonl"


def make_responses(bench: Bench) -> None:
    """An answer to every instruction; those that cannot be learned from are dropped with the reason."""
    candidates = [from_row(Candidate, row) for row in bench.product("instructions")]
    answers = [from_row(Answer, row) for row in bench.kept(ANSWERS, unit=WAVE)]
    bench.progress(len(answers), len(candidates))
    for wave in write_answers(
        candidates,
        bench.split.training,
        recipe=bench.recipe,
        domain=bench.domain,
        description=bench.description,
        start=len(answers),
        generator=bench.engine,
        fits=fits_base(bench, bench.recipe.response_max_new_tokens),
        writer=writer.id if (writer := bench.writer()) else None,
    ):
        bench.append(ANSWERS, map(to_row, wave))
        answers += wave
        bench.progress(len(answers), len(candidates))
    judged = [judge_answer(*pair) for pair in zip(candidates, answers, strict=True)]
    bench.write(ROWS, [to_row(result) for result in judged if isinstance(result, Example)])
    rejected = [result for result in judged if isinstance(result, Rejection)]
    bench.write(REJECTIONS, map(to_row, rejected))
    counts = {"kept": len(judged) - len(rejected), "rejected": count_reasons(rejected)}
    bench.tell("responses_judged", f"{counts['kept']} of {len(judged)} responses are kept", data=counts)


def write_answers(
    candidates: Sequence[Candidate],
    seeds: Sequence[Seed],
    *,
    recipe: Recipe,
    domain: str,
    description: str,
    start: int,
    generator: TextGenerator,
    fits: Fits = always_fits,
    writer: str | None = None,
) -> Iterator[list[Answer]]:
    """Waves of raw answers to the candidates from ``start`` on, in order."""
    for first in range(start, len(candidates), WAVE):
        wave = candidates[first : first + WAVE]
        requests = [
            request_answer(
                candidate, seeds, recipe=recipe, domain=domain, description=description, fits=fits, writer=writer
            )
            for candidate in wave
        ]
        completions = generator.generate(requests)
        yield [Answer.of(done, prompt=asked.prompt) for asked, done in zip(requests, completions, strict=True)]


def request_answer(
    candidate: Candidate,
    seeds: Sequence[Seed],
    *,
    recipe: Recipe,
    domain: str,
    description: str = "",
    fits: Fits = always_fits,
    writer: str | None = None,
) -> GenerationRequest:
    """What the base is asked: a function of the recipe's seed and the candidate alone."""
    chance = random.Random(f"{recipe.seed}/response/{candidate.id}")
    own = [seed for seed in seeds if seed.task == candidate.task]
    drawn = chance.sample(own or list(seeds), min(recipe.response_shots, len(own or seeds)))

    def make(shots: Sequence[Seed]) -> str:
        return response_prompt(domain, candidate.instruction, candidate.input, shots=shots, description=description)

    stop = tuple(text for text in recipe.evaluation_stop if not any(text in seed.output for seed in own))
    return GenerationRequest(
        prompt=make(shorten(drawn, make, fits=fits, least=0)),
        adapter=writer,
        max_new_tokens=recipe.response_max_new_tokens,
        temperature=recipe.response_temperature,
        seed=chance.getrandbits(31),
        stop=(*stop, "\nInstruction:"),  # an answer may hold what the answers of its task's seeds hold
    )


def judge_answer(candidate: Candidate, answer: Answer) -> Example | Rejection:
    """An example, or the reason why this answer is none."""
    text = "\n".join(answer.text.splitlines()).strip()
    if reason := _fault(candidate, answer, text):
        return Rejection(reason, candidate.reply, candidate.item, answer.text)
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
    )


def _fault(candidate: Candidate, answer: Answer, text: str) -> str | None:
    if not text:
        return "empty_response"
    if answer.finish_reason == "length":
        return "truncated_response"
    if text.endswith(":"):
        return "unfinished_response"
    if text.casefold() in (candidate.input.casefold(), candidate.instruction.casefold()):
        return "echoes_prompt"
    return None
