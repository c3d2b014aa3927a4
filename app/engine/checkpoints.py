"""The whole state of a training on disk, so that a killed one goes on as if nothing had been.

One file, the last; written beside its place and moved there, so that it is whole or absent.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map

from app.core.errors import DiskFull

log = logging.getLogger(__name__)

FILE = "training.pt"


class Checkpoints:
    """``digest``: of everything that training follows from; what another training left is not read."""

    def __init__(self, folder: Path, *, digest: str) -> None:
        self._folder, self._digest = folder, digest

    def read(self) -> dict[str, Any] | None:
        """What ``write`` was given last, tensors on the CPU; None if there is none of this training."""
        path = self._folder / FILE
        if not path.exists():
            return None
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
            is_ours = found.pop("digest") == self._digest
        except (OSError, EOFError, RuntimeError, AttributeError, KeyError, pickle.UnpicklingError) as error:
            log.warning("a checkpoint cannot be read, training begins anew: %s", error)
            return None
        return dict(found) if is_ours else None

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the last one. Raises DiskFull."""
        self._folder.mkdir(exist_ok=True)  # not its parents: they are gone once another process has the job
        draft = self._folder / f"{FILE}.new"
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # paged optimizer state is written behind torch's back
        try:
            torch.save({"digest": self._digest, **tree_map(_on_host, dict(state))}, draft)
        except RuntimeError as error:  # "unexpected pos": what could be written is shorter
            if not draft.exists():
                raise
            draft.unlink()
            raise DiskFull(f"a checkpoint could not be written: {draft}: {error}") from error
        draft.replace(self._folder / FILE)


def _on_host(value: Any) -> Any:
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value
