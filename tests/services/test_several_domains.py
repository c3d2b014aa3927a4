"""Several domains' sets as one: what is told apart, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.core.errors import TooLarge
from app.core.records import Seed
from app.core.states import JobStatus
from app.services.request_checks import RawRequest
from app.services.seeds import Limits, SeedSet, read_seeds
from app.services.several_domains import StoredDomain, Union, unite
from app.storage.artifacts import read_rows
from tests.services.house import SEEDS, House

LIMITS = Limits(max_seeds=20, max_field_chars=1000, max_lora_rank=64)


def row(number: int, task: str = "tone", **changes: object) -> dict[str, object]:
    return {"task": task, "instruction": "Good or bad?", "input": f"Text {number}", "output": "good", **changes}


def joined(*members: object, evaluation: list[object] | None = None, **stored: StoredDomain) -> Union:
    """``stored``: what domains were given before."""
    items = None if evaluation is None else read_seeds(evaluation, source="evaluation", limits=LIMITS)
    return unite(list(members), evaluation=items, find=stored.get, limits=LIMITS)


def told(items: SeedSet) -> list[tuple[str, str]]:
    return [(placed.seed.domain, placed.seed.task) for placed in items.seeds]


def reasons(union: Union) -> str:
    return "; ".join(str(problem) for items in (union.seeds, union.evaluation) for problem in items.problems)


def member(name: str, *rows: object, **more: object) -> dict[str, Any]:
    return {"domain": name, "seeds": list(rows), **more}


def test_a_shared_task_is_told_apart_by_its_domain() -> None:
    union = joined(
        member("law", row(1), row(2, "clause"), evaluation=[row(8)]), member("finance", row(3), evaluation=[row(9)])
    )
    assert told(union.seeds) == [("law", "law/tone"), ("law", "clause"), ("finance", "finance/tone")]
    assert told(union.evaluation) == [("law", "law/tone"), ("finance", "finance/tone")]
    assert reasons(union) == ""


def test_evaluation_beside_the_domains_finds_its_domain() -> None:
    """By its task; one that both have must say which, and one that none has belongs to none."""
    items: list[object] = [row(5, "clause"), row(6, "finance/tone"), row(7, "new"), row(8)]
    union = joined(member("law", row(1), row(2, "clause")), member("finance", row(3)), evaluation=items)
    assert told(union.evaluation)[:3] == [("law", "clause"), ("finance", "finance/tone"), ("", "new")]
    assert reasons(union) == (
        "evaluation, line 4, task: several of the domains have a task 'tone': name it law/tone, finance/tone"
    )


def test_a_named_domain_gives_what_it_was_given() -> None:
    """One that was made of several itself keeps their names."""
    stored = StoredDomain("Contracts", (Seed("a", "b", "c", "d"), Seed("e", "f", "g", "h", domain="tax")), ())
    union = joined("law", member("finance", row(3), description=" Reports "), law=stored)
    assert told(union.seeds) == [("law", "a"), ("tax", "e"), ("finance", "tone")]
    assert union.description == "law: Contracts; finance: Reports"


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ("law", "at least two domains"),
        (["law"], "at least two domains"),
        ([member("law", row(1)), 3], "domains, line 2, item: must be one of names"),
        ([member("law", row(1)), member("law", row(2))], "domains, line 2, domain: 'law' is there twice"),
        ([member("law", row(1)), member("La w", row(2))], "domains, line 2, domain: 'L' cannot be part"),
        ([member("law", row(1)), member("finance", row(2), extra=1)], "domains, line 2, extra: unknown key"),
        ([member("law", row(1)), {"domain": "tax", "seeds": "x"}], "domains, line 2, seeds: must be a list"),
        ([member("law", row(1)), {"domain": "tax", "evaluation": []}], "comes with the domain's seeds"),
        ([member("law", row(1)), "tax"], "domains, line 2, seeds: there are no seeds of domain 'tax'"),
        ([member("law", row(1)), member("tax", row(2, output=""))], "domains.tax.seeds, line 1, output: is empty"),
        ([member("law", row(1)), member("tax", row(1))], "item: duplicate: the same as line 1 of domains.law.seeds"),
        ([member("law", row(1)), member("tax", row(2), description=5)], "description: must be a text"),
    ],
)
def test_refusals(members: Any, reason: str) -> None:
    assert reason in reasons(unite(members, evaluation=None, find=lambda name: None, limits=LIMITS))


def test_evaluation_is_given_once() -> None:
    union = joined(member("law", row(1), evaluation=[row(8)]), member("finance", row(3)), evaluation=[row(9, "tone")])
    assert "evaluation: is given twice" in reasons(union)


def test_together_they_may_be_too_many() -> None:
    with pytest.raises(TooLarge, match="22 items"):
        joined(member("law", *(row(n) for n in range(11))), member("tax", *(row(n, "b") for n in range(11))))


def test_one_expert_learns_them_together(tmp_path: Path) -> None:
    """Every prompt shows and names one domain; the rows keep it, and labelled rows are compared with."""
    house = House(tmp_path)
    law = [row(number, task="clause", instruction="Which clause?", output=f"kind {number}") for number in range(5)]
    raw = RawRequest(
        domain="business",
        domains=[{"domain": "finance", "seeds": SEEDS}, {"domain": "law", "seeds": law}],
        labelled=law,
        recipe={"preset": "quick", "num_examples": 30, "max_prompts": 64, "controls": [], "promotion": "always"},
    )
    job_id = house.services.specializer.start(raw).job_id
    house.run(job_id)
    assert (house.job(job_id).status, house.job(job_id).error_message) == (JobStatus.SUCCEEDED, None)
    rows = house.rows(job_id, "dataset")
    assert {row["domain"] for row in rows if row["origin"] == "generated"} == {"finance", "law"}
    assert {row["domain"] for row in rows if row["task"] == "clause"} == {"law"}
    for reply in read_rows(house.artifact(job_id, "instructions").folder / "replies.jsonl"):
        assert f"the field of {'law' if reply['task'] == 'clause' else 'finance'} " in reply["prompt"]
    with house.database.session(read_only=True) as uow:
        assert "supervised" in {metric.against for metric in uow.metrics.list(job_id=job_id)}
