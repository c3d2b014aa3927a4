"""Reading an adapter folder (PEFT's layout) into plain matrices, and refusing by name what slots cannot honour."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from app.core.errors import AdapterRefused
from app.engine.slots import LoraPair

ORIGIN_FILE = "selfspec.json"  # which base an adapter was trained on, by fingerprint
_KEY = re.compile(r"^base_model\.model\.(?P<layer>.+)\.lora_(?P<side>[AB])\.weight$")


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """An adapter read from disk."""

    rank: int
    pairs: dict[str, LoraPair]
    base_fingerprint: str | None  # None: made elsewhere, only shapes can be checked
    num_bytes: int


def read_adapter(folder: Path) -> AdapterFile:
    """Raises AdapterRefused, naming the cause, if the folder is no plain LoRA adapter."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text())
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise AdapterRefused(f"cannot read adapter folder {folder.name}: {error}", param="adapter") from error
    _refuse_unsupported(config)
    pairs = _pairs(tensors, config)
    return AdapterFile(
        rank=max((pair.a.shape[1] for pair in pairs.values()), default=0),
        pairs=pairs,
        base_fingerprint=_origin(folder),
        num_bytes=sum(tensor.nbytes for tensor in tensors.values()),
    )


def _refuse_unsupported(config: dict[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise AdapterRefused(f"peft_type {config.get('peft_type')!r} is not supported; only LORA is", param="adapter")
    if config.get("use_dora"):
        raise AdapterRefused("DoRA adapters are not supported yet", param="adapter")
    if config.get("bias", "none") != "none":
        raise AdapterRefused(f"adapters with bias={config['bias']!r} are not supported yet", param="adapter")
    for key in ("modules_to_save", "rank_pattern", "alpha_pattern"):
        if config.get(key):
            raise AdapterRefused(f"adapters with {key} are not supported yet", param="adapter")


def _pairs(tensors: dict[str, Tensor], config: dict[str, Any]) -> dict[str, LoraPair]:
    rank, alpha = config["r"], config["lora_alpha"]
    scaling = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    sides: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.match(key)
        if match is None:
            raise AdapterRefused(f"unexpected tensor {key!r} in the adapter", param="adapter")
        sides.setdefault(match["layer"], {})[match["side"]] = tensor
    if lonely := [layer for layer, found in sides.items() if len(found) != 2]:
        raise AdapterRefused(f"layer {lonely[0]!r} has only one of lora_A and lora_B", param="adapter")
    return {layer: LoraPair(a=found["A"].T, b=found["B"].T * scaling) for layer, found in sides.items()}


def _origin(folder: Path) -> str | None:
    path = folder / ORIGIN_FILE
    return str(json.loads(path.read_text())["base_fingerprint"]) if path.exists() else None
