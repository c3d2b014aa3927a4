"""Loading the base: a folder or Hugging Face id becomes a model, a tokenizer and a fingerprint.

Knows nothing of any architecture: whatever ``AutoModelForCausalLM`` loads will do. Knows nothing of adapters.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedTokenizerBase

from app.core.errors import SetupError
from app.core.records import BaseInfo

log = logging.getLogger(__name__)

Quantization = Literal["auto", "nf4", "none"]


@dataclass(frozen=True, slots=True)
class BaseOptions:
    """How to load. ``hub_id`` is the name other tools know the base by (written into adapter_config.json)."""

    name: str
    hub_id: str
    quantization: Quantization = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class LoadedBase:
    """A causal language model in evaluation mode, all parameters frozen, and its tokenizer."""

    model: Any  # a transformers PreTrainedModel; its forward differs by architecture
    tokenizer: PreTrainedTokenizerBase
    info: BaseInfo
    hub_id: str
    eos_ids: frozenset[int]
    accepts: frozenset[str]  # argument names of the model's forward

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, with the start token where the tokenizer adds one."""
        return list(self.tokenizer(text)["input_ids"])

    def forward_arguments(self, **arguments: Any) -> dict[str, Any]:
        """Only those arguments that this architecture's forward takes (MPT knows no position_ids, for one)."""
        return {name: value for name, value in arguments.items() if name in self.accepts}


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer alone: a fraction of a second, long before the weights are there."""
    return AutoTokenizer.from_pretrained(folder)


def load_base(options: BaseOptions, folder: Path, *, tokenizer: PreTrainedTokenizerBase | None = None) -> LoadedBase:
    """Load the weights; raises SetupError in one line where the folder is no model."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    dtype = pick_dtype(options.dtype, device)
    quantization = pick_quantization(options.quantization, device)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map={"": device},
            quantization_config=_nf4(dtype) if quantization == "nf4" else None,
        )
    except (OSError, ValueError) as error:
        raise SetupError(f"cannot load the base {options.name!r} from {folder}: {error}") from error
    model.requires_grad_(False)  # from_pretrained leaves it in evaluation mode
    info = BaseInfo(
        name=options.name,
        fingerprint=fingerprint(folder, quantization=quantization),
        quantization=quantization,
        dtype=str(dtype).removeprefix("torch."),
        device=device,
        context_tokens=int(
            getattr(model.config, "max_position_embeddings", 0) or getattr(model.config, "max_seq_len", 0) or 2048
        ),
        num_parameters=model.num_parameters(),
    )
    log.info("base %s loaded: %s", info.name, info)
    return wrap_model(model, tokenizer or load_tokenizer(folder), info, hub_id=options.hub_id)


def wrap_model(model: Any, tokenizer: PreTrainedTokenizerBase, info: BaseInfo, *, hub_id: str) -> LoadedBase:
    """A model that is in memory already, as a base."""
    configured = getattr(model.generation_config, "eos_token_id", None) if model.generation_config else None
    ends = configured if isinstance(configured, list) else [configured]
    eos_ids = frozenset(int(end) for end in [*ends, tokenizer.eos_token_id] if end is not None)
    accepts = frozenset(inspect.signature(model.forward).parameters)
    # a sliced hidden state would make torch multiply by one copy of the vocabulary matrix a row
    model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(), *inputs[1:]))
    return LoadedBase(model, tokenizer, info, hub_id, eos_ids, accepts)


def pick_device(wanted: str) -> str:
    """``cuda`` where there is one, unless told otherwise."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def pick_dtype(wanted: str, device: str) -> torch.dtype:
    """bfloat16 on CUDA and on processors that multiply it in hardware; float32 elsewhere (there bfloat16 is slower)."""
    if wanted != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]
    fast = device == "cuda" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def pick_quantization(wanted: Quantization, device: str) -> str:
    """auto: NF4 on CUDA, none on CPU (where dequantizing costs more than the memory saved)."""
    if wanted == "auto":
        return "nf4" if device == "cuda" else "none"
    return wanted


def _nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    """4-bit NormalFloat with double quantization (QLoRA)."""
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def fingerprint(folder: Path, *, quantization: str) -> str:
    """16 hexadecimal digits over every weight, config and tokenizer byte and the quantization.

    The digests of large files are kept beside them by size and time, so that a start does not read 30 GB again.
    """
    names = sorted(
        path for path in folder.iterdir() if path.suffix in {".safetensors", ".json"} and path.name != _CACHE_NAME
    )
    cache = _DigestCache(folder / _CACHE_NAME)
    parts = [f"{path.name}:{cache.digest(path)}" for path in names if path.name != "manifest.json"]
    cache.save()
    return hashlib.sha256("\n".join([*parts, quantization]).encode()).hexdigest()[:16]


_CACHE_NAME = ".digests.json"


class _DigestCache:
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._known: dict[str, list[Any]] = json.loads(path.read_text())
        except (OSError, ValueError):
            self._known = {}
        self._changed = False

    def digest(self, path: Path) -> str:
        stat = path.stat()
        key = [stat.st_size, stat.st_mtime_ns]
        if self._known.get(path.name, [None])[:2] != key:
            with path.open("rb") as stream:
                self._known[path.name] = [*key, hashlib.file_digest(stream, "sha256").hexdigest()]
            self._changed = True
        return str(self._known[path.name][2])

    def save(self) -> None:
        if not self._changed:
            return
        try:
            self._path.write_text(json.dumps(self._known))
        except OSError:
            log.info("no digest cache beside a read-only base")
