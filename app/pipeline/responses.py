"""New instructions → examples: each is answered, and what cannot be learned from is dropped (paper §2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from app.core.records import Answer, Candidate, Example, Rejection
from app.pipeline.answering import ANSWERS, answer_all, judge_answer
from app.pipeline.bench import ROWS, Bench
from app.pipeline.merging import Merger
from app.pipeline.rows import from_row, to_row
from app.pipeline.trust import seeds_to_write_for
from app.pipeline.validity import Rules

REJECTIONS = "rejections.jsonl"
KEPT = "kept"


def make_responses(bench: Bench) -> None:
    """An answer to every instruction; those that cannot be learned from are dropped with the reason."""
    total = sum(1 for _ in bench.product("instructions"))
    rules = Rules(bench.split.training, is_strict=bench.recipe.validity == "strict")
    answer_all(bench, _candidates(bench), total=total, seeds=seeds_to_write_for(bench), rules=rules)
    _judge(bench, rules)


def _candidates(bench: Bench) -> Iterator[Candidate]:
    return (from_row(Candidate, row) for row in bench.product("instructions"))


def _judge(bench: Bench, rules: Rules) -> None:
    """Candidates and answers are read side by side, once for each file that is written: no list of all."""

    def answered() -> Iterator[tuple[Candidate, Answer]]:
        answers = (from_row(Answer, row) for row in bench.kept(ANSWERS, unit=1))
        return zip(_candidates(bench), answers, strict=True)

    merger = Merger(answered(), recipe=bench.recipe, rules=rules)

    def judged() -> Iterator[Example | Rejection]:
        for candidate, answer in answered():
            yield judge_answer(candidate, merger.merge(candidate, answer), recipe=bench.recipe, rules=rules)

    outcomes = Counter(result.reason if isinstance(result, Rejection) else KEPT for result in judged())
    bench.write(ROWS, (to_row(result) for result in judged() if isinstance(result, Example)))
    bench.write(REJECTIONS, (to_row(result) for result in judged() if isinstance(result, Rejection)))
    kept = outcomes.pop(KEPT, 0)
    told = f"{kept} of {kept + outcomes.total()} responses are kept"
    bench.tell("responses_judged", told, data={"kept": kept, "rejected": dict(outcomes.most_common())})
