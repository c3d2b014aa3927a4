"""New instructions → examples: each is answered, and what cannot be learned from is dropped (paper §2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import islice

from app.core.records import Answer, Candidate, Example, Rejection
from app.pipeline.answering import judge_answer, write_answers
from app.pipeline.bench import ROWS, WAVE, Bench
from app.pipeline.rows import from_row, to_row
from app.pipeline.trust import trusted_seeds
from app.pipeline.validity import Rules

ANSWERS, REJECTIONS = "answers.jsonl", "rejections.jsonl"
KEPT = "kept"


def make_responses(bench: Bench) -> None:
    """An answer to every instruction; those that cannot be learned from are dropped with the reason."""
    done = sum(1 for _ in bench.kept(ANSWERS, unit=WAVE))
    total = sum(1 for _ in bench.product("instructions"))
    tokens = 0  # written in this attempt, of the answers that were chosen
    bench.progress(done, total)
    rules = Rules(bench.split.training, is_strict=bench.recipe.validity == "strict")
    waves = write_answers(bench, islice(_candidates(bench), done, None), seeds=trusted_seeds(bench), rules=rules)
    with closing(waves):
        for answers in waves:
            bench.append(ANSWERS, map(to_row, answers))
            done += len(answers)
            tokens += sum(answer.num_tokens for answer in answers)
            bench.progress(done, total, detail={"tokens": tokens})
    _judge(bench, rules)


def _candidates(bench: Bench) -> Iterator[Candidate]:
    return (from_row(Candidate, row) for row in bench.product("instructions"))


def _judge(bench: Bench, rules: Rules) -> None:
    """Candidates and answers are read side by side, once for each file that is written: no list of all."""

    def judged() -> Iterator[Example | Rejection]:
        answers = (from_row(Answer, row) for row in bench.kept(ANSWERS, unit=1))
        for candidate, answer in zip(_candidates(bench), answers, strict=True):
            yield judge_answer(candidate, answer, recipe=bench.recipe, rules=rules)

    outcomes = Counter(result.reason if isinstance(result, Rejection) else KEPT for result in judged())
    bench.write(ROWS, (to_row(result) for result in judged() if isinstance(result, Example)))
    bench.write(REJECTIONS, (to_row(result) for result in judged() if isinstance(result, Rejection)))
    kept = outcomes.pop(KEPT, 0)
    told = f"{kept} of {kept + outcomes.total()} responses are kept"
    bench.tell("responses_judged", told, data={"kept": kept, "rejected": dict(outcomes.most_common())})
