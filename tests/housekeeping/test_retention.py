"""Retention: what nobody needs goes, in order, and what somebody needs stays, whatever the policy says."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import Conflict, NotFound
from app.core.states import JobStatus, WaitsFor
from app.engine.fake import FakeEngine
from app.services.experts import Experts, Target
from app.services.retention import Report, Retention
from app.services.retention_plan import Policy
from app.storage.artifacts import MANIFEST, Artifact, ArtifactStore, Files
from app.storage.disk import LOCK
from app.storage.store_files import StoreFiles
from tests.housekeeping.versions import SMALL, failed, leave, owe_webhooks, version
from tests.services.house import BASE, House

NOTHING = Policy(num_bytes=0)  # keep nothing but what is needed


def retention(house: House, policy: Policy = NOTHING) -> Retention:
    logs = house.artifacts.root.parent / "logs"
    return Retention(house.database, house.artifacts, policy=policy, logs_dir=logs, clock=house.clock)


def clean(house: House, policy: Policy = NOTHING) -> Report:
    settle(house)
    return retention(house, policy).clean()


def settle(house: House) -> None:
    """Nothing was made within the last hour."""
    for manifest in house.artifacts.root.rglob(MANIFEST):
        os.utime(manifest, (0, 0))


def there(house: House, job_id: str) -> set[str]:
    """Stages whose artifacts can be opened; each of them is whole."""
    found = set()
    for stage, digest in house.digests(job_id).items():
        with suppress(NotFound):
            if digest is not None:
                house.artifacts.verify(house.artifacts.open(digest, kind=stage))
                found.add(stage)
    return found


class Untrained(FakeEngine):
    """Cannot learn: a job ends after its dataset."""

    def train(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no training today")


MADE = {"instructions", "responses", "dataset", "adapter", "metrics", "gate"}
UNTIL_DATASET = {"instructions", "responses", "dataset"}


def test_unless_it_is_asked_for_artifacts_stay(house: House) -> None:
    job_id = failed(house)
    house.now += timedelta(days=10_000)
    assert clean(house, Policy()).count == 0
    assert there(house, job_id) == UNTIL_DATASET


def test_what_is_served_newest_or_a_way_back_stays(house: House) -> None:
    old, before, served = (version(house, number) for number in (1, 2, 3))
    undone, newest = version(house, 4), version(house, 5, is_served=False)
    house.services.promotions.rollback("finance")  # from 4 to 3
    report = clean(house)
    assert there(house, served) == there(house, newest) == MADE
    assert there(house, before) == there(house, old) == {"adapter"}  # all that going back takes
    assert there(house, undone) == set()
    assert report.over_bytes == report.kept_bytes > 0
    for name in ("finance@v2", "finance@v1"):
        champion = house.services.promotions.rollback("finance").champion
        assert champion is not None
        assert champion.name == name
        assert expert(house, Target(domain="finance")) == name
    assert house.order(seed=6, **SMALL)  # seeds are there too


def test_what_a_champion_was_made_from_stays_whoever_made_it(house: House) -> None:
    bad = failed(house)
    version(house, 1, made_from=[house.artifact(bad, "responses").digest])
    version(house, 2, is_served=False)
    clean(house)
    assert there(house, bad) == {"instructions", "responses"}


def expert(house: House, target: Target) -> str | None:
    """Who answers, in a process that has just started."""
    return Experts(house.database, house.artifacts, FakeEngine(base_name=BASE)).resolve(target).name


def test_a_version_whose_files_went_says_so_everywhere(house: House) -> None:
    version(house, 1)
    version(house, 2)
    house.services.promotions.rollback("finance")
    version(house, 3, is_served=False)
    running = Experts(house.database, house.artifacts, FakeEngine(base_name=BASE))
    assert running.resolve(Target(adapter="finance@v2")).name == "finance@v2"
    clean(house)
    told = "files of finance@v2 were removed by retention on 2024-01-05; GET /domains/finance says which versions"
    for target in (Target(adapter="finance@v2"), Target(model="finance@v2")):
        with pytest.raises(NotFound, match=told):
            running.resolve(target)
    with pytest.raises(NotFound, match=told):
        house.services.adapters.archive("finance@v2")
    with pytest.raises(Conflict, match="not in the artifact store"):
        house.services.promotions.promote("finance", 2)
    assert house.services.adapters.get("finance@v2").files_removed_at == house.now
    versions = house.services.domains.get("finance").versions
    assert [one.name for one in versions if one.files_removed_at is None] == ["finance@v3", "finance@v1"]
    assert [name.name for name in house.services.names.list()] == [BASE, "finance", "finance@v3", "finance@v1"]
    leave(house, 2)  # a job that makes the same weights
    assert house.services.adapters.get("finance@v2").files_removed_at is None
    assert running.resolve(Target(adapter="finance@v2")).name == "finance@v2"


def test_a_job_that_is_tried_again_makes_what_went_anew(house: House) -> None:
    job_id = house.order(**{**SMALL, "promotion": "always"})
    house.run(job_id, engine=Untrained(slots=1, base_name=BASE))
    made = house.digests(job_id)
    assert {(group.kind, group.why) for group in clean(house).groups} == {
        (kind, "of failed or cancelled jobs") for kind in UNTIL_DATASET
    }
    assert there(house, job_id) == set()
    house.services.mover.retry(job_id)
    house.run(job_id)
    assert house.job(job_id).status is JobStatus.SUCCEEDED
    assert there(house, job_id) == MADE
    assert {stage: house.digests(job_id)[stage] for stage in UNTIL_DATASET} == {
        stage: made[stage] for stage in UNTIL_DATASET
    }
    assert house.services.adapters.get("finance@v1").files_removed_at is None


@pytest.mark.parametrize("moved", ["retry", "review", "running"])
def test_a_job_that_has_not_ended_keeps_what_it_made(house: House, moved: str) -> None:
    if moved == "review":
        job_id = leave(house, 1, until="dataset")
        with house.database.session() as uow:
            uow.jobs.move(job_id, JobStatus.QUEUED, now=house.now, waits_for=WaitsFor.REVIEW)
            uow.commit()
    else:
        job_id = failed(house)
        house.services.mover.retry(job_id)
        draft = house.artifacts.draft(job_id, "adapter")
        (draft / "half").write_text("")
        if moved == "running":
            house.take(job_id)
    drafts = house.drafts(job_id)
    assert clean(house).count == 0
    assert there(house, job_id) == UNTIL_DATASET
    assert house.drafts(job_id) == drafts


def test_failed_jobs_go_first_and_no_more_than_must(house: House) -> None:
    bad = failed(house, 8)
    good = version(house, 1, is_served=False)
    version(house, 2)
    settle(house)
    every = retention(house).look()
    sizes = {(group.kind, group.why): group.num_bytes for group in every.groups}
    assert {why for _, why in sizes} == {"of failed or cancelled jobs", "of versions that are not served"}
    of_failed = sum(size for (_, why), size in sizes.items() if why == "of failed or cancelled jobs")
    report = clean(house, Policy(num_bytes=every.kept_bytes + every.num_bytes - of_failed))
    assert report.num_bytes == of_failed
    assert (there(house, bad), there(house, good)) == (set(), MADE)


def test_age_counts_from_the_end_of_the_job(house: House) -> None:
    first = failed(house, 8)
    house.now += timedelta(days=20)
    second = failed(house, 9)
    house.now += timedelta(days=11)
    clean(house, Policy(days=30))
    assert (there(house, first), there(house, second)) == (set(), UNTIL_DATASET)


def test_a_dry_run_says_what_a_run_does_and_does_nothing(house: House) -> None:
    failed(house)
    (house.artifacts.draft("put", "killed") / "rows.jsonl").write_text("half")
    house.now += timedelta(days=10_000)
    settle(house)
    before = sorted(house.artifacts.root.rglob("*"))
    dry = retention(house).look()
    assert sorted(house.artifacts.root.rglob("*")) == before
    real = retention(house).clean()
    assert (dry.groups, dry.kept_bytes) == (real.groups, real.kept_bytes)
    assert dry.count == 4
    again = retention(house).look()
    assert (again.count, again.kept_bytes) == (0, real.kept_bytes)


def test_leftovers_go_without_being_asked_for(house: House) -> None:
    """Whatever a kill may leave: drafts of an ended job, trash, an artifact that was half deleted."""
    ended, waiting = failed(house), house.order(seed=1)
    for owner in (ended, waiting, "trash", "gone-1", "index"):
        (house.artifacts.draft(owner, "left") / "file").write_text("x")
    torn = house.artifact(ended, "dataset")
    (torn.folder / MANIFEST).unlink()
    report = clean(house, Policy())
    assert not torn.folder.exists()
    assert {(group.kind, group.why): group.count for group in report.groups} == {
        ("dataset", "half deleted or half made"): 1,
        ("drafts", "drafts of ended jobs"): 1,
        ("drafts", "was being deleted"): 2,
    }
    left = {path.parent.parent.name for path in (house.artifacts.root / "tmp").rglob("file")}
    assert left == {waiting, "index"}  # the second may still be at work
    house.now += timedelta(days=10_000)
    assert clean(house, Policy()).count == 1


def test_what_the_database_does_not_know_goes_only_when_asked_for(house: House) -> None:
    stranger = house.artifacts.put_rows([{"n": 1}], kind="dataset")
    report = clean(house)
    assert (report.count, report.num_unknown, report.unknown_bytes) == (0, 1, report.kept_bytes)
    house.artifacts.verify(stranger)
    assert clean(house, Policy(with_unknown=True)).count == 1
    with pytest.raises(NotFound):
        house.artifacts.open(stranger.digest, kind="dataset")


def test_what_may_be_loaded_by_name_stays(house: House) -> None:
    version(house, 1)
    version(house, 2)
    house.services.promotions.rollback("finance")
    version(house, 3)
    job_id = failed(house)
    clean(house, Policy(num_bytes=0, roots=(house.artifacts.root / "dataset",)))
    assert there(house, job_id) == {"dataset"}


def test_logs_and_deliveries_of_long_ago_go(house: House) -> None:
    old, waiting = failed(house), house.order(seed=1)
    logs = house.artifacts.root.parent / "logs"
    logs.mkdir()
    for name in (f"{old}.log", f"{waiting}.log", "api.log", "job-of-another-database.log"):
        (logs / name).write_text("words")
    owe_webhooks(house, old, 2)
    house.now += timedelta(days=31)
    report = clean(house, Policy(days=30))
    assert {group.kind: group.count for group in report.groups if group.kind not in MADE} == {
        "logs": 1,
        "webhook deliveries": 1,
    }
    assert sorted(path.name for path in logs.iterdir()) == sorted(
        [f"{waiting}.log", "api.log", "job-of-another-database.log"]
    )


def again(house: House, artifact: Artifact) -> Artifact:
    """Make an artifact that is there once more, as another job would."""
    return house.artifacts.put_rows(list(artifact.rows()), kind="note")


def test_what_was_made_again_just_now_stays(house: House) -> None:
    """Its maker may not have told the database yet."""
    artifact = house.artifacts.put_rows([{"n": 1}], kind="note")
    with house.database.session() as uow:
        uow.artifacts.record(artifact, now=house.now)
        uow.commit()
    settle(house)
    stored = StoreFiles(house.artifacts.root).artifacts()
    again(house, artifact)
    house.now = datetime.fromtimestamp((artifact.folder / MANIFEST).stat().st_mtime, UTC)
    assert retention(house, Policy()).look().count == 0
    with StoreFiles(house.artifacts.root).alone():
        assert not StoreFiles(house.artifacts.root).hide(stored[0], unless_since=house.now.timestamp() - 3600)
    house.artifacts.verify(artifact)
    settle(house)
    assert retention(house, Policy()).clean().groups[0].why == "no row names it any more"


class Watched(ArtifactStore):
    """Notes whether artifacts could be taken away while one is put into its place."""

    is_safe = False

    def _put(self, draft: Path, folder: Path, files: Files) -> None:
        with (self.root / LOCK).open() as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.is_safe = True
        super()._put(draft, folder, files)


def test_nothing_is_taken_away_while_an_artifact_is_put_into_its_place(tmp_path: Path) -> None:
    """Else what was made anew in that moment would be gone before it counted as used."""
    store = Watched(tmp_path)
    store.put_rows([{"n": 1}], kind="note")
    assert store.is_safe
    with StoreFiles(tmp_path).alone(), (tmp_path / LOCK).open() as handle, pytest.raises(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_an_artifact_that_was_made_anew_is_not_deleted_with_the_old_one(house: House) -> None:
    files, artifact = StoreFiles(house.artifacts.root), house.artifacts.put_rows([{"n": 1}], kind="note")
    settle(house)
    [stored] = files.artifacts()
    with files.alone():
        assert files.hide(stored, unless_since=house.now.timestamp())
    again(house, artifact)
    files.remove_hidden(stored)
    house.artifacts.verify(house.artifacts.open(artifact.digest, kind="note"))
