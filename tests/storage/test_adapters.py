"""Adapter versions, champions, metrics and the artifacts' index."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from app.core.errors import Conflict, NotFound, UnknownDomain
from app.models import Metric
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database, UnitOfWork
from app.storage.promotions import ROLLBACK
from tests.storage.samples import DOMAIN, LATER, NOW, add_adapter, at_once, new_job, store_job


def digest(number: int) -> str:
    return f"{number:064x}"[::-1]


def serve(uow: UnitOfWork, adapter_id: str, *, domain: str = DOMAIN, reason: str = "gate: good") -> None:
    uow.domains.set_champion(domain, adapter_id, now=NOW, reason=reason)


def test_versions_made_at_once_are_numbered_without_gaps(database: Database) -> None:
    store_job(database)

    def add(number: int) -> int:
        with database.session() as uow:
            adapter = add_adapter(uow, digest=digest(number))
            uow.commit()
        return adapter.version

    versions = at_once(add, times=12)
    assert sorted(versions) == list(range(1, 13))


def test_each_domain_counts_for_itself(database: Database) -> None:
    with database.session() as uow:
        uow.domains.get_or_add("sports", now=NOW)
        uow.jobs.add(new_job())
        names = [add_adapter(uow, digest=digest(n), domain=d).name for n, d in enumerate([DOMAIN, "sports", DOMAIN])]
        assert names == ["finance@v1", "sports@v1", "finance@v2"]
        assert uow.adapters.next_version("sports") == 2
        assert [adapter.name for adapter in uow.adapters.list(DOMAIN)] == ["finance@v2", "finance@v1"]
        assert len(uow.adapters.list()) == 3
        assert uow.adapters.by_name(DOMAIN, 2).artifact_digest == digest(2)


def test_the_same_weights_are_the_same_version(database: Database) -> None:
    store_job(database)

    def add(_: int) -> tuple[str, int]:
        with database.session() as uow:
            adapter = add_adapter(uow, digest=digest(7))
            uow.commit()
        return adapter.id, adapter.version

    assert set(at_once(add, times=4)) == {(digest(7)[:16], 1)}


def test_the_same_weights_in_two_domains_are_two_adapters(database: Database) -> None:
    with database.session() as uow:
        uow.domains.get_or_add("sports", now=NOW)
        uow.jobs.add(new_job())
        first, second = (add_adapter(uow, digest=digest(7), domain=domain) for domain in (DOMAIN, "sports"))
        again = add_adapter(uow, digest=digest(7), domain="sports")
    assert first.id != second.id
    assert again.id == second.id
    assert (first.version, second.version) == (1, 1)


def test_an_adapter_of_no_job_is_a_bug_not_a_race(database: Database) -> None:
    with database.session() as uow, pytest.raises(IntegrityError):
        add_adapter(uow, digest=digest(1), job_id="job-none")


def test_unknown_adapters_are_not_found(database: Database) -> None:
    with database.session() as uow:
        with pytest.raises(NotFound):
            uow.adapters.get("none")
        with pytest.raises(NotFound, match="finance@v9"):
            uow.adapters.by_name(DOMAIN, 9)


def test_a_champion_is_served_and_comes_with_its_domain(database: Database) -> None:
    store_job(database)
    with database.session() as uow:
        uow.domains.get_or_add("sports", now=NOW)
        adapter = add_adapter(uow, digest=digest(1))
        serve(uow, adapter.id)
        uow.commit()
    with database.session(read_only=True) as uow:
        domains = uow.domains.list()
        assert uow.domains.champion(DOMAIN).id == adapter.id
        assert list(uow.domains.served()) == [DOMAIN]
    assert [(d.name, d.champion.name if d.champion else None) for d in domains] == [
        (DOMAIN, "finance@v1"),
        ("sports", None),
    ]


def test_a_domain_without_expert_names_those_that_have_one(database: Database) -> None:
    store_job(database)
    with database.session() as uow:
        uow.domains.get_or_add("sports", now=NOW)
        serve(uow, add_adapter(uow, digest=digest(1)).id)
        for name in ("sports", "chess"):
            with pytest.raises(UnknownDomain, match=r"with an expert: finance") as refusal:
                uow.domains.champion(name)
            assert refusal.value.domains == (DOMAIN,)
        with pytest.raises(UnknownDomain):
            uow.domains.get("chess")


def test_a_champion_must_be_an_adapter_of_its_domain(database: Database) -> None:
    store_job(database)
    with database.session() as uow:
        uow.domains.get_or_add("sports", now=NOW)
        adapter = add_adapter(uow, digest=digest(1))
        with pytest.raises(Conflict, match="of domain 'finance'"):
            serve(uow, adapter.id, domain="sports")
        with pytest.raises(NotFound):
            serve(uow, "none")


def test_every_change_of_a_champion_is_written_down_and_no_repetition(database: Database) -> None:
    store_job(database)
    with database.session() as uow:
        first, second = (add_adapter(uow, digest=digest(number)).id for number in (1, 2))
        for adapter_id in (first, second, second, first):
            serve(uow, adapter_id)
        rows = uow.promotions.list(DOMAIN)
        assert [adapter.name if adapter else None for _, adapter in rows] == ["finance@v1", "finance@v2", "finance@v1"]
        rest = uow.promotions.list(DOMAIN, after=rows[0][0].id, limit=1)
        assert [promotion.adapter_id for promotion, _ in rest] == [second]
        assert uow.promotions.list("sports") == []
        with pytest.raises(NotFound):
            uow.promotions.list(DOMAIN, after=99)


def test_what_was_served_before_is_found_through_promotions_and_rollbacks(database: Database) -> None:
    """Promoting an old version by hand is a promotion: the way back from it leads to the newer one."""
    store_job(database)
    with database.session() as uow:
        one, two, three = (add_adapter(uow, digest=digest(number)).id for number in (1, 2, 3))
        assert uow.promotions.before(DOMAIN) is None
        expected = [(one, "", None), (two, "", one), (three, "", two), (one, "by hand", three)]
        expected += [(three, ROLLBACK, two), (two, ROLLBACK, one), (three, "", two), (two, ROLLBACK, one)]
        for adapter_id, reason, before in [*expected, (one, ROLLBACK, None)]:
            serve(uow, adapter_id, reason=reason)
            assert uow.promotions.before(DOMAIN) == before


def test_a_domain_is_made_once_and_keeps_its_description(database: Database) -> None:
    def add(_: int) -> None:
        with database.session() as uow:
            uow.domains.get_or_add("chess", now=NOW)
            uow.commit()

    at_once(add, times=4)
    with database.session() as uow:
        uow.domains.get_or_add("chess", now=LATER, description="openings")
        domain = uow.domains.get_or_add("chess", now=LATER)
    assert (domain.description, domain.created_at) == ("openings", NOW)


def test_figures_of_a_repeated_evaluation_replace_the_old_ones(database: Database) -> None:
    store_job(database)

    def figure(adapter_id: str, difference: float, task: str = "mean") -> Metric:
        return Metric(
            adapter_id=adapter_id,
            job_id="job-1",
            task=task,
            metric="f1",
            n=10,
            against="base_template",
            shots=0,
            score=0.1,
            expert=0.1 + difference,
            difference=difference,
            low=0.05,
            high=0.3,
        )

    with database.session() as uow:
        adapter_id = add_adapter(uow, digest=digest(1)).id
        other_id = add_adapter(uow, digest=digest(2)).id
        uow.metrics.replace(adapter_id, job_id="job-1", metrics=[figure(adapter_id, 0.9)])
        uow.metrics.replace(other_id, job_id="job-1", metrics=[figure(other_id, 0.3)])
        new = [figure(adapter_id, 0.2), figure(adapter_id, 0.1, task="qa")]
        uow.metrics.replace(adapter_id, job_id="job-1", metrics=new)
        uow.commit()
    with database.session(read_only=True) as uow:
        assert [m.difference for m in uow.metrics.list(adapter_ids=[adapter_id])] == [0.2, 0.1]
        assert len(uow.metrics.list(job_id="job-1")) == 3
        assert list(uow.metrics.list(job_id="job-1", adapter_ids=[])) == []


def test_the_index_keeps_who_made_an_artifact_first(database: Database, tmp_path: Path) -> None:
    store_job(database, "job-1")
    store_job(database, "job-2")
    artifact = ArtifactStore(tmp_path).put_rows([{"a": 1}], kind="dataset", parents=["p"])
    with database.session() as uow:
        uow.artifacts.record(artifact, now=NOW, job_id="job-1", stage="dataset")
        entry = uow.artifacts.record(artifact, now=LATER, job_id="job-2", stage="dataset")
        uow.commit()
        assert [e.digest for e in uow.artifacts.list("job-1")] == [artifact.digest]
        assert list(uow.artifacts.list("job-2")) == []
        with pytest.raises(NotFound):
            uow.artifacts.get("0" * 64)
    assert (entry.job_id, entry.parents, entry.num_bytes, entry.created_at) == ("job-1", ["p"], 9, NOW)
