"""New instructions → examples: the base answers as an expert of the domain (paper §2; App. C: no demonstrations)."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from app.core.ports import TextGenerator
from app.core.recipe import Recipe
from app.core.records import Answer, Candidate, Example, GenerationRequest, Origin, Rejection, Seed
from app.pipeline.prompts import Fits, always_fits, response_prompt, shorten

RESPONSES_PER_WAVE = 32  # see instructions.PROMPTS_PER_WAVE


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
) -> Iterator[list[Answer]]:
    """Waves of raw answers to the candidates from ``start`` on, in order."""
    for first in range(start, len(candidates), RESPONSES_PER_WAVE):
        wave = candidates[first : first + RESPONSES_PER_WAVE]
        requests = [
            request_answer(candidate, seeds, recipe=recipe, domain=domain, description=description, fits=fits)
            for candidate in wave
        ]
        yield [Answer.of(completion) for completion in generator.generate(requests)]


def request_answer(
    candidate: Candidate,
    seeds: Sequence[Seed],
    *,
    recipe: Recipe,
    domain: str,
    description: str = "",
    fits: Fits = always_fits,
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
