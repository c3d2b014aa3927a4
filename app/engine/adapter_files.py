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
_HARMLESS_STARTS = (True, False, "gaussian", "orthogonal", "eva")  # the others take something away from the base
_UNSUPPORTED = (
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "alora_invocation_tokens",
    "trainable_token_indices",
    "target_parameters",
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "megatron_config",
)
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
        config = _object(folder / "adapter_config.json")
        tensors = load_file(folder / "adapter_model.safetensors")
        fingerprint = _origin(folder)
    except (OSError, ValueError, SafetensorError) as error:
        raise _refused(f"cannot read adapter folder {folder.name}: {error}") from error
    _refuse_unsupported(config)
    rank, scaling = _scaling(config)
    return AdapterFile(
        rank=rank,
        pairs=_pairs(tensors, rank=rank, scaling=scaling),
        base_fingerprint=fingerprint,
        num_bytes=sum(tensor.nbytes for tensor in tensors.values()),
    )


def _refused(message: str) -> AdapterRefused:
    return AdapterRefused(message, param="adapter")


def _object(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return content


def _refuse_unsupported(config: dict[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise _refused(f"peft_type {config.get('peft_type')!r} is not supported; only LORA is")
    if config.get("use_dora"):
        raise _refused("DoRA adapters are not supported yet")
    if config.get("bias", "none") != "none":
        raise _refused(f"adapters with bias={config['bias']!r} are not supported yet")
    if (start := config.get("init_lora_weights", True)) not in _HARMLESS_STARTS:
        raise _refused(f"adapters with init_lora_weights={start!r} change the base's own weights; convert it first")
    for key in _UNSUPPORTED:
        if config.get(key):
            raise _refused(f"adapters with {key} are not supported yet")


def _scaling(config: dict[str, Any]) -> tuple[int, float]:
    """The rank, and what B is multiplied with."""
    for key in ("r", "lora_alpha"):
        if not isinstance(config.get(key), int | float) or config[key] <= 0:
            raise _refused(f"adapter_config.json: {key} is {config.get(key)!r}, not a number above 0")
    rank, alpha = config["r"], config["lora_alpha"]
    return rank, alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _pairs(tensors: dict[str, Tensor], *, rank: int, scaling: float) -> dict[str, LoraPair]:
    sides: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.match(key)
        if match is None:
            raise _refused(f"unexpected tensor {key!r} in the adapter")
        if tensor.ndim != 2:
            raise _refused(f"tensor {key!r} is no matrix: {tuple(tensor.shape)}")
        sides.setdefault(match["layer"], {})[match["side"]] = tensor
    if not sides:
        raise _refused("the adapter holds no LoRA weights: nothing would be applied")
    return {layer: _pair(layer, found, rank=rank, scaling=scaling) for layer, found in sides.items()}


def _pair(layer: str, found: dict[str, Tensor], *, rank: int, scaling: float) -> LoraPair:
    if len(found) != 2:
        raise _refused(f"layer {layer!r} has only one of lora_A and lora_B")
    ranks = (found["A"].shape[0], found["B"].shape[1])
    if ranks != (rank, rank):
        raise _refused(f"layer {layer!r} has rank {ranks[0]} in A and {ranks[1]} in B; its config says rank {rank}")
    return LoraPair(a=found["A"].T, b=found["B"].T * scaling)


def _origin(folder: Path) -> str | None:
    path = folder / ORIGIN_FILE
    if not path.exists():
        return None
    fingerprint = _object(path).get("base_fingerprint")
    if not isinstance(fingerprint, str):
        raise ValueError(f"{ORIGIN_FILE} names no base_fingerprint")
    return fingerprint
