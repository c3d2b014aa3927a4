"""Reading an adapter folder (PEFT's layout) into plain matrices, and refusing by name what slots cannot honour.

Honoured: any rank and scaling, also by layer (``rank_pattern``, ``alpha_pattern``) and rank-stabilized
(``use_rslora``), layers left out, ``fan_in_fan_out`` (the two matrices are laid out alike either way).
Knows nothing of the base that an adapter will sit beside; ``SlotBank.check`` compares the two.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from app.core.errors import AdapterRefused
from app.engine.slots import LoraPair

ORIGIN_FILE = "selfspec.json"  # which base an adapter was trained on, by fingerprint
_WEIGHTS_FILE = "adapter_model.safetensors"
_HARMLESS_STARTS = (True, False, "gaussian", "orthogonal", "eva")  # the others take something away from the base
_REFUSED = {  # what changes more than a linear layer's sum: the remedy
    "use_dora": "train it with use_dora=False",
    "lora_bias": "train it with lora_bias=False",
    "modules_to_save": "train it without; whole modules belong to the base, which all adapters share",
    "trainable_token_indices": "train it without; the embeddings belong to the base, which all adapters share",
    "target_parameters": "train it on target_modules only",
    "layer_replication": "write the base with its layers replicated, and serve that",
    "alora_invocation_tokens": "train it as plain LoRA: it would act on every token here",
    "use_qalora": "train it as plain LoRA",
    "use_bdlora": "train it as plain LoRA",
    "velora_config": "train it as plain LoRA",
    "arrow_config": "attach the adapters that it routes between, each on its own",
    "kasa_config": "train it as plain LoRA",
    "monteclora_config": "train it as plain LoRA",
    "megatron_config": "train it without Megatron's parallel layers",
}
_KEY = re.compile(r"^base_model\.model\.(?P<layer>.+)\.lora_(?P<side>[AB])\.weight$")
_FOREIGN = {  # tensors that tell a kind of adapter, should its config not
    ".lora_embedding_": "LoRA on embeddings is not supported; train it on linear layers only",
    ".lora_magnitude_vector": "DoRA adapters are not supported; train it with use_dora=False",
}


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """An adapter in memory. Its matrices are parts of one stretch of memory, page-locked where there is CUDA."""

    rank: int  # the highest of any layer
    pairs: Mapping[str, LoraPair]  # by the layer's name in the base
    base_fingerprint: str | None  # None: made elsewhere, only shapes can be checked
    num_bytes: int


def read_adapter(folder: Path, *, dtype: torch.dtype | None = None) -> AdapterFile:
    """Read into ``dtype`` (None: as it was saved). Raises AdapterRefused if the folder is no plain LoRA adapter."""
    try:
        config = _object(folder / "adapter_config.json")
        tensors = load((folder / _WEIGHTS_FILE).read_bytes())
        fingerprint = _origin(folder)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise _refused(f"cannot read adapter folder {folder.name}: {_reason(folder, error)}") from error
    _refuse_unsupported(config)
    pairs, flat = _pairs(tensors, _Scaling(config), dtype)
    if not all(map(torch.isfinite, flat.aminmax())):
        raise _refused(f"the adapter holds weights that are no finite {str(flat.dtype).removeprefix('torch.')} numbers")
    return AdapterFile(
        rank=max(pair.a.shape[1] for pair in pairs.values()),
        pairs=pairs,
        base_fingerprint=fingerprint,
        num_bytes=flat.nbytes,
    )


def _refused(message: str) -> AdapterRefused:
    return AdapterRefused(message, param="adapter")


def _reason(folder: Path, error: Exception) -> str:
    if not (folder / _WEIGHTS_FILE).exists() and (folder / "adapter_model.bin").exists():
        return "adapter_model.bin may hold code; save the adapter again with safe_serialization=True"
    return next(iter(str(error).splitlines()), type(error).__name__)


def _object(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return content


def _refuse_unsupported(config: dict[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise _refused(f"peft_type {config.get('peft_type')!r} is not supported; only LORA is")
    if config.get("bias", "none") != "none":
        raise _refused(f"adapters with bias={config['bias']!r} are not supported; train it with bias='none'")
    for key, remedy in _REFUSED.items():
        if config.get(key):
            raise _refused(f"adapters with {key} are not supported; {remedy}")
    if (start := config.get("init_lora_weights", True)) not in _HARMLESS_STARTS:
        raise _refused(
            f"adapters with init_lora_weights={start!r} change the base's own weights; save it with PEFT's "
            "path_initial_model_for_weight_conversion, which makes it plain LoRA"
        )


class _Scaling:
    """Each layer's rank and what its B is multiplied with, as the config says."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._rank, self._alpha = (_positive(key, config.get(key)) for key in ("r", "lora_alpha"))
        self._ranks, self._alphas = (self._pattern(config, key) for key in ("rank_pattern", "alpha_pattern"))
        self._is_stabilized = bool(config.get("use_rslora"))

    def of(self, layer: str) -> tuple[int, float]:
        rank = self._ranks.get(get_pattern_key(list(self._ranks), layer), self._rank)
        alpha = self._alphas.get(get_pattern_key(list(self._alphas), layer), self._alpha)
        return int(rank), alpha / (math.sqrt(rank) if self._is_stabilized else rank)

    @staticmethod
    def _pattern(config: dict[str, Any], name: str) -> dict[str, float]:
        pattern = config.get(name) or {}
        if not isinstance(pattern, dict):
            raise _refused(f"adapter_config.json: {name} is no JSON object")
        for key, value in pattern.items():
            _positive(f"{name}[{key!r}]", value)
            try:
                re.compile(key)
            except re.error as error:
                raise _refused(f"adapter_config.json: {name}[{key!r}] is no regular expression: {error}") from error
        return pattern


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise _refused(f"adapter_config.json: {name} is {value!r}, not a number above 0")
    return value


def _pairs(
    tensors: dict[str, Tensor], scaling: _Scaling, dtype: torch.dtype | None
) -> tuple[dict[str, LoraPair], Tensor]:
    """The matrices by layer, and the memory that all of them lie in."""
    sides = _by_layer(tensors)
    factors = {layer: _check(layer, found, *scaling.of(layer)) for layer, found in sides.items()}
    flat = torch.empty(
        sum(tensor.numel() for tensor in tensors.values()),
        dtype=dtype or next(iter(tensors.values())).dtype,
        pin_memory=torch.cuda.is_available(),
    )
    pieces = iter(
        flat.split_with_sizes([tensor.numel() for found in sides.values() for tensor in (found["A"], found["B"])])
    )
    pairs = {}
    for layer, found in sides.items():
        a, b = found["A"], found["B"].T  # [r, in], [r, out]
        pair = LoraPair(a=next(pieces).view(a.shape).copy_(a).T, b=next(pieces).view(b.shape))
        torch.mul(b, factors[layer], out=pair.b) if b.dtype == pair.b.dtype else pair.b.copy_(
            b.float() * factors[layer]
        )
        pairs[layer] = pair
    return pairs, flat


def _by_layer(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    sides: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.match(key)
        if match is None:
            reason = next((text for part, text in _FOREIGN.items() if part in key), "unexpected tensor in the adapter")
            raise _refused(f"{reason}: {key!r}")
        if tensor.ndim != 2 or not tensor.is_floating_point():
            raise _refused(f"tensor {key!r} is no matrix of numbers: {tensor.dtype}, {tuple(tensor.shape)}")
        sides.setdefault(match["layer"], {})[match["side"]] = tensor
    if not sides:
        raise _refused("the adapter holds no LoRA weights: nothing would be applied")
    return sides


def _check(layer: str, found: dict[str, Tensor], rank: int, factor: float) -> float:
    """What B is multiplied with, if the two matrices are what the config says."""
    if len(found) != 2:
        raise _refused(f"layer {layer!r} has only one of lora_A and lora_B")
    ranks = (found["A"].shape[0], found["B"].shape[1])
    if ranks != (rank, rank):
        raise _refused(f"layer {layer!r} has rank {ranks[0]} in A and {ranks[1]} in B; its config says rank {rank}")
    return factor


def _origin(folder: Path) -> str | None:
    path = folder / ORIGIN_FILE
    if not path.exists():
        return None
    fingerprint = _object(path).get("base_fingerprint")
    if not isinstance(fingerprint, str):
        raise ValueError(f"{ORIGIN_FILE} names no base_fingerprint")
    return fingerprint
