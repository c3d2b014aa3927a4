"""The artifact store: whole or not there, the same twice, damage noticed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import ArtifactDamaged, NotFound, SetupError
from app.storage.artifacts import MANIFEST, ROWS, Artifact, ArtifactStore, append_rows
from app.storage.disk import disk_errors
from tests.storage.samples import at_once

RECIPE = {"preset": "quick", "seed": 1}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def commit(store: ArtifactStore, job_id: str = "job-1", *, content: str = "weights", **values: Any) -> Artifact:
    draft = store.draft(job_id, "adapter")
    (draft / "adapter_config.json").write_text("{}")
    (draft / "deep").mkdir(exist_ok=True)
    (draft / "deep" / "adapter_model.safetensors").write_text(content)
    given = {"kind": "adapter", "recipe": RECIPE, "parents": ["p1"], **values}
    return store.commit(draft, **given)


def test_an_artifact_tells_what_it_is_made_of(store: ArtifactStore) -> None:
    artifact = commit(store, meta={"seconds": 3.5})
    opened = store.open(artifact.digest, kind="adapter")
    assert opened == artifact
    assert opened.folder == store.root / "adapter" / artifact.digest
    assert (opened.folder / "deep" / "adapter_model.safetensors").read_text() == "weights"
    assert (opened.manifest["recipe"], opened.parents, opened.meta) == (RECIPE, ("p1",), {"seconds": 3.5})
    assert sorted(opened.manifest["files"]) == ["adapter_config.json", "deep/adapter_model.safetensors"]
    assert opened.num_bytes == len("{}") + len("weights")
    store.verify(opened)


def test_a_commit_uses_up_the_draft(store: ArtifactStore) -> None:
    draft = store.draft("job-1", "adapter")
    commit(store)
    assert not draft.exists()
    with pytest.raises(NotFound, match="nothing to commit"):
        store.commit(draft, kind="adapter", recipe=RECIPE, parents=[])


def test_committing_the_same_twice_gives_the_same_artifact(store: ArtifactStore) -> None:
    first = commit(store, "job-1", meta={"seconds": 1})
    second = commit(store, "job-2", meta={"seconds": 2})
    assert second == first
    assert [path.name for path in (store.root / "adapter").iterdir()] == [first.digest]


def test_committing_the_same_at_once_gives_one_whole_artifact(store: ArtifactStore) -> None:
    artifacts = at_once(lambda number: commit(store, f"job-{number}"), times=8)
    assert len({artifact.digest for artifact in artifacts}) == 1
    store.verify(artifacts[0])
    assert [path.name for path in (store.root / "adapter").iterdir()] == [artifacts[0].digest]


def test_what_is_made_otherwise_is_another_artifact(store: ArtifactStore) -> None:
    digests = {
        commit(store).digest,
        commit(store, content="other").digest,
        commit(store, kind="draft_adapter").digest,
        commit(store, parents=["p2"]).digest,
        commit(store, recipe={**RECIPE, "seed": 2}).digest,
    }
    assert len(digests) == 5


def test_without_a_manifest_there_is_no_artifact(store: ArtifactStore) -> None:
    artifact = commit(store)
    (artifact.folder / MANIFEST).unlink()
    with pytest.raises(NotFound):
        store.open(artifact.digest, kind="adapter")


def test_a_commit_that_was_killed_before_the_manifest_can_be_repeated(store: ArtifactStore) -> None:
    artifact = commit(store)
    (artifact.folder / MANIFEST).unlink()
    assert commit(store) == artifact
    store.verify(artifact)


def test_the_kind_is_part_of_the_address(store: ArtifactStore) -> None:
    artifact = commit(store)
    with pytest.raises(NotFound):
        store.open(artifact.digest, kind="dataset")


@pytest.mark.parametrize("digest", ["", "../adapter", "0" * 63, "0" * 64])
def test_what_is_no_digest_is_not_found(store: ArtifactStore, digest: str) -> None:
    with pytest.raises(NotFound):
        store.open(digest, kind="adapter")


def test_every_kind_of_damage_is_noticed(store: ArtifactStore) -> None:
    artifact = commit(store)
    weights = artifact.folder / "deep" / "adapter_model.safetensors"
    weights.write_text("WEIGHTS")
    with pytest.raises(ArtifactDamaged, match=r"deep/adapter_model\.safetensors"):
        store.verify(artifact)
    weights.unlink()
    with pytest.raises(ArtifactDamaged, match=r"deep/adapter_model\.safetensors"):
        store.verify(artifact)
    weights.write_text("weights")
    (artifact.folder / "added").write_text("")
    with pytest.raises(ArtifactDamaged, match="added"):
        store.verify(artifact)


def test_a_changed_manifest_is_noticed(store: ArtifactStore) -> None:
    artifact = commit(store)
    manifest = json.loads((artifact.folder / MANIFEST).read_text())
    (artifact.folder / MANIFEST).write_text(json.dumps({**manifest, "parents": ["p2"]}))
    with pytest.raises(ArtifactDamaged, match=MANIFEST):
        store.verify(store.open(artifact.digest, kind="adapter"))
    (artifact.folder / MANIFEST).write_text("{")
    with pytest.raises(ArtifactDamaged, match="cannot be read"):
        store.open(artifact.digest, kind="adapter")


def test_committing_again_replaces_a_damaged_artifact(store: ArtifactStore) -> None:
    artifact = commit(store)
    (artifact.folder / "adapter_config.json").write_text("damaged")
    again = commit(store, "job-2")
    assert again.digest == artifact.digest
    store.verify(again)


def test_a_draft_survives_until_it_is_discarded(store: ArtifactStore) -> None:
    (store.draft("job-1", "responses") / ROWS).write_text("half")
    (store.draft("job-2", "responses") / ROWS).write_text("other")
    assert (store.draft("job-1", "responses") / ROWS).read_text() == "half"
    kept = commit(store, "job-1")
    store.discard("job-1")
    store.discard("job-1")
    assert list(store.draft("job-1", "responses").iterdir()) == []
    assert (store.draft("job-2", "responses") / ROWS).read_text() == "other"
    store.verify(kept)


def test_rows_are_an_artifact(store: ArtifactStore) -> None:
    rows = [{"n": 1}, {"n": 2}]
    artifact = store.put_rows(rows, kind="seeds", meta={"num_rows": 2})
    assert list(artifact.rows()) == rows
    assert store.put_rows(rows, kind="seeds").digest == artifact.digest
    empty = store.put_rows([], kind="seeds")
    assert list(empty.rows()) == []
    assert not any((store.root / "tmp" / "put").iterdir())


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", "a b", ".hidden"])
def test_no_name_leaves_the_store(store: ArtifactStore, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a folder"):
        store.draft(name, "stage")
    with pytest.raises(ValueError, match="cannot name a folder"):
        store.draft("job-1", name)
    with pytest.raises(ValueError, match="cannot name a folder"):
        commit(store, kind=name)


def test_an_artifact_is_readable_where_its_folder_was_moved(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = commit(store)
    shutil.move(store.root, tmp_path / "moved")
    moved = ArtifactStore(tmp_path / "moved")
    moved.verify(moved.open(artifact.digest, kind="adapter"))


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=f"the disk is full: {tmp_path}"), disk_errors(tmp_path):
        Path("/dev/full").write_text("x")


# ---- drafts of attempts ----


def half(store: ArtifactStore, *, attempt: int, rows: str = "one\n") -> Path:
    """A file that an attempt has begun."""
    store.adopt("job-1", attempt=attempt)
    path = store.draft("job-1", "responses", attempt=attempt) / ROWS
    with path.open("a") as file:
        file.write(rows)
    return path


def test_an_attempt_goes_on_with_the_draft_of_the_last(store: ArtifactStore) -> None:
    half(store, attempt=2)
    assert half(store, attempt=5, rows="two\n").read_text() == "one\ntwo\n"
    half(store, attempt=6, rows="")
    assert [path.name for path in (store.root / "tmp" / "job-1").iterdir()] == ["attempt-6"]


def test_a_file_that_an_earlier_attempt_holds_open_is_no_longer_the_drafts(store: ArtifactStore) -> None:
    """It was stopped in the middle of a write, and goes on after another took over."""
    path = half(store, attempt=1)
    with path.open("a") as stale:
        mine = half(store, attempt=2, rows="two\n")
        stale.write("stale\n")
    assert mine.read_text() == "one\ntwo\n"


def test_an_earlier_attempt_finds_its_folders_gone(store: ArtifactStore) -> None:
    path = half(store, attempt=1)
    half(store, attempt=2)
    with pytest.raises(FileNotFoundError):
        append_rows(path, [{"n": 1}])
    with pytest.raises(FileNotFoundError):
        store.draft("job-1", "adapter", attempt=1)
    with pytest.raises(NotFound, match="nothing to commit"):
        store.commit(path.parent, kind="responses", recipe=RECIPE, parents=[])


def test_an_attempt_that_was_killed_while_it_took_over_loses_nothing(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    half(store, attempt=1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "copyfile", killed)
        store.adopt("job-1", attempt=2)
    assert half(store, attempt=3, rows="two\n").read_text() == "one\ntwo\n"


def test_of_a_commit_that_was_killed_nothing_is_in_the_store_yet(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder without its manifest stayed there for ever once its job was cancelled."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        commit(store)
    assert list((store.root / "adapter").iterdir()) == []
    monkeypatch.undo()
    store.verify(commit(store))


def test_a_discarded_draft_is_gone_at_once_and_leaves_no_rest(store: ArtifactStore) -> None:
    path = half(store, attempt=1)
    store.discard("job-1")
    with pytest.raises(FileNotFoundError):
        append_rows(path, [{"n": 1}])
    assert [found for found in (store.root / "tmp").rglob("*") if found.name != "trash"] == []
