"""This service, as a user starts it, on a fresh data folder; adapters come in by ``/v1/load_lora_adapter``."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from app.processes import Program
from benchmarks.serving.load import Address
from benchmarks.serving.processes import free_port, running, wait_ready
from benchmarks.serving.target import HttpTarget, Kit, Target, Variant, completion_body
from benchmarks.serving.workload import BASE, MIXES, Request


@dataclass(frozen=True, slots=True)
class Selfspec:
    """``settings`` are further environment variables; ``kind`` is the service's own engine, real or fake."""

    kit: Kit
    settings: Mapping[str, str] = field(default_factory=dict)
    kind: str = "real"
    name: str = "selfspec"

    def missing(self) -> str | None:
        return None

    def variants(self) -> tuple[Variant, ...]:
        return Variant("float32"), Variant("bfloat16")

    @contextmanager
    def serve(self, variant: Variant) -> Iterator[tuple[Target, ...]]:
        with self.start(variant) as target:
            yield (target,)

    @contextmanager
    def start(self, variant: Variant) -> Iterator[HttpTarget]:
        """The service alone."""
        port, key = free_port(), secrets.token_hex(16)
        program = Program(
            self.name,
            (sys.executable, "-m", "app.cli", "serve"),
            self.kit.folder / "logs" / f"selfspec-{variant.name.replace(' ', '-')}.log",
        )
        with self._data_folder() as data:
            environment = {
                "SELFSPEC_DATA_DIR": str(data),
                "SELFSPEC_ENGINE": self.kind,
                "SELFSPEC_BASE": self.kit.model.name,
                "SELFSPEC_DTYPE": variant.dtype,
                "SELFSPEC_THREADS": str(self.kit.threads),
                "SELFSPEC_PORT": str(port),
                "SELFSPEC_ADMIN_KEY": key,
                "SELFSPEC_ADAPTER_ROOTS": os.pathsep.join(
                    {str(folder.parent) for folder in self.kit.adapters.values()}
                ),
                **variant.environment,
                **self.settings,
            }
            with running(program, environment=environment) as process:
                wait_ready(program, process, f"http://127.0.0.1:{port}/ready")
                address = Address("127.0.0.1", port, (("Authorization", f"Bearer {key}"),))
                self._load(address)
                body = partial(completion, base=self.kit.model.name)
                yield HttpTarget(self.name, process, address, tuple(MIXES), body, is_asked_drawn=True)

    @contextmanager
    def _data_folder(self) -> Iterator[Path]:
        """A fresh one that shares the base's files."""
        with tempfile.TemporaryDirectory(dir=self.kit.folder, prefix="data-") as name:
            (Path(name) / "models").symlink_to(self.kit.model.parent, target_is_directory=True)
            yield Path(name)

    def _load(self, address: Address) -> None:
        """Raises httpx.HTTPStatusError if an adapter is refused."""
        for name, folder in self.kit.adapters.items():
            body = {"lora_name": name, "lora_path": str(folder)}
            client("POST", address, "/v1/load_lora_adapter", json=body)


def client(method: str, address: Address, path: str, **more: Any) -> httpx.Response:
    """One call of the service. Raises httpx.HTTPStatusError with what it answered."""
    url = f"http://{address.host}:{address.port}{path}"
    answer = httpx.request(method, url, headers=dict(address.headers), timeout=60, trust_env=False, **more)
    if answer.is_error:
        raise httpx.HTTPStatusError(f"{path}: {answer.text}", request=answer.request, response=answer)
    return answer


def completion(request: Request, *, base: str) -> dict[str, Any]:
    """``raw``: the prompt as it is, as the peers read it, without the expert's template."""
    return {**completion_body(request, model=base if request.model == BASE else None), "raw": True}
