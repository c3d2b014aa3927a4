"""A job's first prompts, sent through the serving engine: what they yield, and what the recipe would reach by it."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from app.core.errors import NotReady
from app.core.ports import Engine
from app.core.recipe import Recipe
from app.core.records import Candidate, Example, Rejection, Reply, Seed
from app.pipeline.acceptance import Acceptance
from app.pipeline.answering import draw_answers, judge_answer, request_answers
from app.pipeline.cut_texts import cut_texts, without_cut
from app.pipeline.instructions import write_replies
from app.pipeline.merging import Merger
from app.pipeline.validity import Rules
from app.services.seed_report import Projection, RejectedItems, Trial

MAX_ANSWERED = 8  # accepted items that are answered too
_NEVER_FULL = 1_000_000  # of a trial every item is judged, however few examples the recipe wants
_SAMPLES, _SAMPLE_CHARS = 3, 300  # shown of each kind


def try_prompts(
    seeds: Sequence[Seed], num_prompts: int, *, recipe: Recipe, about: tuple[str, str], engine: Engine
) -> Trial:
    """Write, judge, answer and measure. ``seeds``: those that would be learned; ``about``: domain and description.

    Blocks while the engine works. Raises NotReady while the base is loading, Overloaded as the engine does.
    """
    context = _context(engine)
    began = time.perf_counter()
    replies = _write(seeds, num_prompts, recipe=recipe, about=about, engine=engine, context=context)
    seconds = time.perf_counter() - began
    acceptance = Acceptance(seeds, recipe=recipe.model_copy(update={"num_examples": _NEVER_FULL, "sizes": ()}))
    judged = [result for reply in replies for result in acceptance.read(reply)]
    candidates = [result for result in judged if isinstance(result, Candidate)]
    began = time.perf_counter()
    tried = candidates[:MAX_ANSWERED]
    answered = _answer(tried, seeds, recipe=recipe, about=about, engine=engine, context=context)
    answer_seconds = time.perf_counter() - began
    kept = sum(isinstance(result, Example) for result in answered)
    return Trial(
        prompts=len(replies),
        written=len(judged),
        accepted=len(candidates),
        tokens=sum(reply.num_tokens for reply in replies),
        seconds=seconds,
        rejected=_by_reason(judged),
        samples=tuple(_clip(f"{item.instruction}\n{item.input}".strip()) for item in candidates[:_SAMPLES]),
        answered=len(answered),
        answers_kept=kept,
        answer_seconds=answer_seconds,
        rejected_answers=_by_reason(answered),
        projection=project(
            recipe,
            accepted_a_prompt=len(candidates) / max(1, len(replies)),
            prompt_seconds=seconds / max(1, len(replies)),
            kept_share=kept / max(1, len(answered)),
            answer_seconds=answer_seconds / max(1, len(answered)),
        ),
    )


def _context(engine: Engine) -> int:
    """Tokens that the base can read."""
    if engine.base is None:
        raise NotReady("the base is still loading; a dry run needs it: ask again in a minute")
    return engine.base.context_tokens


def _write(
    seeds: Sequence[Seed],
    num_prompts: int,
    *,
    recipe: Recipe,
    about: tuple[str, str],
    engine: Engine,
    context: int,
) -> list[Reply]:
    """Raw replies to the job's first prompts."""
    domain, description = about
    waves = write_replies(
        without_cut(seeds, cut_texts(seeds, recipe=recipe, count=engine.count)),
        recipe=recipe.model_copy(update={"max_prompts": num_prompts}),
        domain=domain,
        description=description,
        start=0,
        generator=engine,
        fits=lambda prompt: engine.count(prompt) <= context - recipe.instruction_max_new_tokens,
    )
    return [reply for wave in waves for reply in wave.replies]


def project(
    recipe: Recipe, *, accepted_a_prompt: float, prompt_seconds: float, kept_share: float, answer_seconds: float
) -> Projection:
    """Straight on at this pace: prompts until there is enough or ``max_prompts`` are spent, in every round."""
    is_vain = recipe.pool_size and not accepted_a_prompt
    enough = recipe.max_prompts if is_vain else math.ceil(recipe.pool_size / max(accepted_a_prompt, 1e-9))
    prompts = min(recipe.max_prompts, enough)
    accepted = min(recipe.pool_size, math.floor(prompts * accepted_a_prompt + 1e-9))
    return Projection(
        examples=round(accepted * kept_share),
        wanted=recipe.pool_size,
        prompts=prompts,
        instruction_seconds=prompts * prompt_seconds * recipe.iterations,
        response_seconds=accepted * answer_seconds * recipe.iterations,
    )


def _answer(
    candidates: Sequence[Candidate],
    seeds: Sequence[Seed],
    *,
    recipe: Recipe,
    about: tuple[str, str],
    engine: Engine,
    context: int,
) -> list[Example | Rejection]:
    """The base answers as in a job, but without passages and without an expert of the seeds."""
    domain, description = about
    requests = [
        request_answers(
            candidate,
            seeds=seeds,
            recipe=recipe,
            domain=domain,
            description=description,
            fits=lambda prompt: engine.count(prompt) <= context - recipe.response_max_new_tokens,
        )
        for candidate in candidates
    ]
    rules = Rules(seeds, is_strict=recipe.validity == "strict")
    waves = draw_answers([(candidates, requests)], rules=rules, generator=engine)
    pairs = list(zip(candidates, (answer for answers in waves for answer in answers), strict=True))
    merger = Merger(pairs, recipe=recipe, rules=rules)
    return [judge_answer(item, merger.merge(item, answer), recipe=recipe, rules=rules) for item, answer in pairs]


def _by_reason(judged: Iterable[object]) -> tuple[RejectedItems, ...]:
    """What was rejected, the most frequent reason first."""
    samples: dict[str, list[str]] = defaultdict(list)
    counts: Counter[str] = Counter()
    for each in judged:
        if isinstance(each, Rejection):
            counts[each.reason] += 1
            if len(samples[each.reason]) < _SAMPLES:
                samples[each.reason].append(_clip(f"{each.text} ({each.detail})" if each.detail else each.text))
    return tuple(RejectedItems(reason, count, tuple(samples[reason])) for reason, count in counts.most_common())


def _clip(text: str) -> str:
    return text if len(text) <= _SAMPLE_CHARS else text[:_SAMPLE_CHARS] + "…"
