"""Promotion by gate and by hand, the way back, and what an evaluation looks at beside its job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import Conflict, InvalidInput, NotFound, NotReady, UnknownDomain
from app.core.records import Completion, GenerationRequest
from app.core.states import JobStatus
from app.engine.fake import FakeEngine, write_fake_adapter
from app.pipeline.template import ALPACA
from app.services.promotion import PromotionService
from tests.services.house import BASE, EVALUATION, SEEDS, SMALL_JOB, House
from tests.storage.samples import at_once

SMALL: dict[str, Any] = {**SMALL_JOB, "num_examples": 3, "max_prompts": 4, "promotion": "unless_worse"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house"))


class Answering(FakeEngine):
    """Its base answers ``base``, its experts ``expert``."""

    def __init__(self, base: str, expert: str) -> None:
        super().__init__(slots=1, base_name=BASE)
        self._texts = {True: expert, False: base}

    def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
        answers = super().generate(requests, **options)
        return [
            replace(answer, text=self._texts[request.adapter is not None]) if "sponse:" in request.prompt else answer
            for request, answer in zip(requests, answers, strict=True)
        ]


def make_expert(house: House, domain: str, number: int, *, engine: FakeEngine | None = None, **knobs: Any) -> str:
    """Run the job that makes the domain's next version."""
    job_id = house.order(domain=domain, seed=number, **{**SMALL, "promotion": "always", **knobs})
    house.run(job_id, engine=engine)
    assert house.job(job_id).status is JobStatus.SUCCEEDED, house.job(job_id).error_message
    return job_id


def add_experts(house: House, domain: str, count: int) -> None:
    """What so many jobs leave whose gates promoted."""
    base = FakeEngine(base_name=BASE)
    for number in range(count):
        job_id, weights = house.order(domain=domain), f"{domain} {number}".encode().ljust(32)
        draft = house.artifacts.draft(job_id, "adapter")
        write_fake_adapter(draft, base_name=BASE, weights=weights)
        artifact = house.artifacts.commit(draft, kind="adapter", recipe={}, parents=[])
        with house.database.session() as uow:
            adapter = uow.adapters.add(
                domain,
                job_id=job_id,
                artifact_digest=artifact.digest,
                base=base.wait_ready(),
                attachment=base.attach(artifact.digest, artifact.folder),
                alpha=16,
                num_parameters=64,
                template=json.dumps(ALPACA.to_dict()),
                now=house.now,
            )
            uow.domains.set_champion(domain, adapter.id, now=house.now, reason="gate: better", job_id=job_id)
            uow.commit()


def served(house: House, domain: str) -> str | None:
    champion = house.services.domains.get(domain).champion
    return None if champion is None else champion.name


def reasons(house: House, domain: str) -> list[tuple[str | None, str]]:
    return [(row.adapter_name, row.reason) for row in house.services.promotions.history(domain, limit=100).items]


# ---- by hand ----


def test_promote_and_the_way_back(house: House) -> None:
    """Through jobs, promotions and rollbacks alike, down to the first, and everything is written down."""
    add_experts(house, "walk", 3)
    promotions = house.services.promotions
    assert promotions.promote("walk", 1, reason=" it reads better ").champion.name == "walk@v1"  # type: ignore[union-attr]
    for name in ("walk@v3", "walk@v2", "walk@v1"):
        assert promotions.rollback("walk").champion.name == name  # type: ignore[union-attr]
    with pytest.raises(Conflict, match="nothing was served before it"):
        promotions.rollback("walk")
    assert served(house, "walk") == "walk@v1"
    told = reasons(house, "walk")
    assert told[:4] == [
        ("walk@v1", "rollback: walk@v2 → walk@v1"),
        ("walk@v2", "rollback: walk@v3 → walk@v2"),
        ("walk@v3", "rollback: walk@v1 → walk@v3"),
        ("walk@v1", "by hand: it reads better"),
    ]
    assert told[4:] == [(f"walk@v{number}", "gate: better") for number in (3, 2, 1)]
    newest = promotions.history("walk", limit=5)
    assert len(promotions.history("walk", after=int(newest.next or 0)).items) == 2


def test_rollbacks_at_once_each_go_one_further_back(house: House) -> None:
    add_experts(house, "crowd", 4)

    def rollback(_: int) -> bool:
        try:
            house.services.promotions.rollback("crowd")
        except Conflict:
            return False
        return True

    assert sum(at_once(rollback, times=6)) == 3
    assert served(house, "crowd") == "crowd@v1"
    rolled = [name for name, reason in reasons(house, "crowd") if reason.startswith("rollback")]
    assert rolled == ["crowd@v1", "crowd@v2", "crowd@v3"]


def test_a_version_by_number_name_or_id(house: House) -> None:
    add_experts(house, "names", 2)
    [_, first] = house.services.domains.get("names").versions
    for version in (1, "1", "v1", "names@v1", first.id):
        house.services.promotions.promote("names", 2)
        house.services.promotions.promote("names", version)
        assert served(house, "names") == "names@v1"


def test_promoting_what_is_served_changes_nothing(house: House) -> None:
    add_experts(house, "same", 1)
    house.services.promotions.promote("same", 1)
    assert len(reasons(house, "same")) == 1


def test_what_cannot_be_promoted(house: House) -> None:
    add_experts(house, "strict", 1)
    add_experts(house, "other", 1)
    before = reasons(house, "strict")
    promotions = house.services.promotions
    for version in (2, "strict@v2", "0" * 16, "no such thing"):
        with pytest.raises(NotFound, match="GET /domains/strict lists its versions"):
            promotions.promote("strict", version)
    with pytest.raises(Conflict, match="of domain 'other'"):
        promotions.promote("strict", "other@v1")
    for name, error in (("nowhere", UnknownDomain), ("No Where", InvalidInput)):
        with pytest.raises(error):
            promotions.promote(name, 1)
        with pytest.raises(error):
            promotions.rollback(name)
        with pytest.raises(error):
            promotions.history(name)
    assert (served(house, "strict"), reasons(house, "strict")) == ("strict@v1", before)


@pytest.mark.parametrize(
    ("engine", "error"), [(FakeEngine(base_name="new-base"), Conflict), (FakeEngine(loaded=False), NotReady)]
)
def test_nothing_is_promoted_that_the_loaded_base_could_not_serve(
    house: House, engine: FakeEngine, error: type[Exception]
) -> None:
    domain = f"base-{error.__name__.lower()}"
    add_experts(house, domain, 2)
    promotions = PromotionService(
        house.database, house.artifacts, engine, domains=house.services.domains, clock=house.clock
    )
    for change in (partial(promotions.promote, domain, 1), partial(promotions.rollback, domain)):
        with pytest.raises(error):
            change()
    assert served(house, domain) == f"{domain}@v2"


def test_files_that_are_gone_cannot_be_promoted(tmp_path: Path) -> None:
    house = House(tmp_path)
    add_experts(house, "finance", 2)
    house.lose_artifacts()
    with pytest.raises(Conflict, match="the files of finance@v1"):
        house.services.promotions.promote("finance", 1)
    assert served(house, "finance") == "finance@v2"


def test_a_domain_that_serves_nothing_has_no_way_back(house: House) -> None:
    house.order(domain="waiting")
    with pytest.raises(Conflict, match="serves nothing yet"):
        house.services.promotions.rollback("waiting")
    assert house.services.promotions.history("waiting").items == ()


# ---- by a gate ----


def test_the_first_version_must_match_the_base_and_the_next_the_champion(house: House) -> None:
    """The second is far better than the base, but the champion knew everything."""
    first = make_expert(house, "rivals", 0, engine=Answering("poor", "bad"), promotion="if_better")
    assert served(house, "rivals") == "rivals@v1"
    assert "(the base)" in house.rows(first, "gate")[0]["reason"]

    class Forgetful(Answering):
        def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
            champion = house.job(first).adapter_id
            answers = super().generate(requests, **options)
            return [replace(a, text="bad") if a.adapter == champion else a for a in answers]

    second = make_expert(house, "rivals", 1, engine=Forgetful("poor", "bad and poor"), promotion="unless_worse")
    [verdict] = house.rows(second, "gate")
    assert (verdict["decision"], "surely worse than the champion" in verdict["reason"]) == ("reject", True)
    assert served(house, "rivals") == "rivals@v1"
    [(name, reason)] = reasons(house, "rivals")
    assert (name, reason.startswith("gate: mean token F1 ")) == ("rivals@v1", True)


def test_a_held_expert_waits_for_a_person(house: House) -> None:
    job_id = make_expert(house, "held", 0, promotion="manual")
    view = house.services.domains.get("held")
    assert view.champion is None
    [version] = view.versions
    assert (version.decision, "leaves it to you" in (version.reason or "")) == ("hold", True)
    assert house.events(job_id, "job_succeeded")[0].message == "held@v1 is not served"
    assert house.services.adapters.archive("held@v1").num_bytes > 0
    house.services.promotions.promote("held", 1)
    assert served(house, "held") == "held@v1"


def test_a_handful_of_items_decides_nothing(house: House) -> None:
    job_id = house.order(domain="handful", evaluation=None, **{**SMALL, "promotion": "unless_worse"})
    house.run(job_id)
    assert house.rows(job_id, "gate")[0]["decision"] == "hold"
    assert served(house, "handful") is None


# ---- what an evaluation looks at ----


def test_other_domains_newest_evaluation_sets_are_asked(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.order(domain="law", evaluation=EVALUATION[:2])
    newer = [{**row, "input": f"{row['input']} of law"} for row in EVALUATION[:30]]
    house.now = house.now.replace(hour=5)
    house.order(domain="law", evaluation=newer)
    house.order(domain="none", evaluation=None)
    asked = []
    for number in (0, 0, 1):
        job_id = house.order(domain="finance", **{**SMALL, "off_domain_items": 7, "seed": number})
        house.run(job_id)
        folder = house.artifact(job_id, "metrics").folder
        asked.append((folder / "off_domain.jsonl").read_text())
        report = house.services.jobs.metrics(job_id).report
        assert report is not None
        assert [(row.domain, row.n) for row in report.off_domain.domains] == [("law", 7)]
    assert asked[0] == asked[1] != asked[2]


def test_controls_are_lines_of_the_report(tmp_path: Path) -> None:
    house = House(tmp_path)
    job_id = house.order(**{**SMALL, "controls": ("epochs", "steps"), "evaluation_shots": (0, 1)}, seeds=SEEDS)
    house.run(job_id)
    found = house.services.jobs.metrics(job_id)
    assert {(row.against, row.shots) for row in found.metrics} == {
        ("base", 0),
        ("base", 1),
        ("base_template", 0),
        ("base_template", 1),
        ("seeds_same_epochs", 0),
        ("seeds_same_steps", 0),
    }
    assert found.report is not None
    assert found.report.about.n == len(EVALUATION)
    house.lose_artifacts()
    assert house.services.jobs.metrics(job_id).report is None
