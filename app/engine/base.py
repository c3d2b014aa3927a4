"""Loading the base: a folder or Hugging Face id becomes a model, a tokenizer and a fingerprint.

Knows nothing of any architecture: whatever ``AutoModelForCausalLM`` loads will do. Knows nothing of adapters.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedTokenizerBase

from app.core.errors import InvalidInput, Problem, SetupError
from app.core.records import BaseInfo
from app.engine.encoding import Encoder
from app.engine.fingerprint import fingerprint
from app.engine.loading import ONE_AT_A_TIME

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
    encoder: Encoder
    eos_id: int  # what an expert learns to end with, and what rows are padded with
    eos_ids: frozenset[int]  # all that end an answer
    accepts: frozenset[str]  # argument names of the model's forward

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def num_embeddings(self) -> int:
        """Tokens the model has numbers for; its tokenizer may know fewer, or more."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt. Raises InvalidInput for a text that the base cannot read."""
        return self._readable(self.encoder.prompt(text))

    def encode_continuation(self, text: str) -> list[int]:
        """Token ids of what follows a prompt. Raises InvalidInput for a text that the base cannot read."""
        return self._readable(self.encoder.continuation(text))

    def _readable(self, ids: list[int]) -> list[int]:
        """A token without an embedding (some tokenizers have a few) would end the process on CUDA."""
        if unknown := [token for token in ids if token >= self.num_embeddings]:
            text = self.tokenizer.decode(unknown[:1])
            raise InvalidInput([Problem("input", f"the base {self.info.name} has no token {text!r}")])
        return ids

    def forward_arguments(self, **arguments: Any) -> dict[str, Any]:
        """Only those arguments that this architecture's forward takes (MPT knows no position_ids, for one)."""
        return {name: value for name, value in arguments.items() if name in self.accepts}


def load_tokenizer(folder: Path, *, name: str) -> PreTrainedTokenizerBase:
    """The tokenizer alone: a fraction of a second, long before the weights are there. Raises SetupError."""
    with _loading(name, folder):
        return AutoTokenizer.from_pretrained(folder)


def load_base(options: BaseOptions, folder: Path, *, tokenizer: PreTrainedTokenizerBase | None = None) -> LoadedBase:
    """Load the weights; raises SetupError in one line where the folder is no model."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    dtype = pick_dtype(options.dtype, device)
    quantization = pick_quantization(options.quantization, device)
    with _loading(options.name, folder), ONE_AT_A_TIME:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map={"": device},
            quantization_config=_nf4(dtype) if quantization == "nf4" else None,
            use_safetensors=True,  # what the fingerprint covers
        )
    if quantization == "nf4":
        _keep_layout(model)
    model.requires_grad_(False)  # from_pretrained leaves it in evaluation mode
    info = BaseInfo(
        name=options.name,
        fingerprint=fingerprint(folder, quantization=quantization),
        quantization=quantization,
        dtype=str(dtype).removeprefix("torch."),
        device=device,
        context_tokens=context_tokens(model.config),
        num_parameters=model.num_parameters(),
        device_name=torch.cuda.get_device_name(device) if device == "cuda" else "",
    )
    log.info("base %s loaded: %s", info.name, info)
    tokenizer = tokenizer or load_tokenizer(folder, name=options.name)
    return wrap_model(model, tokenizer, info, hub_id=options.hub_id)


def _keep_layout(model: Any) -> None:
    """Forbid bitsandbytes to repack layers on processors with AVX-512 BF16 at their first answer.

    A repacked layer is about twice as fast, but passes no gradient, rounds its scales anew, and fails where a row is no
    whole number of blocks. A job answers before it trains, and an adapter is right only on the weights it learned on.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False


@contextmanager
def _loading(name: str, folder: Path) -> Iterator[None]:
    """Whatever the libraries raise about a folder (they raise about everything) is one line for a person."""
    try:
        yield
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise SetupError(f"cannot load the base {name!r} from {folder}: {reason}") from error


def wrap_model(model: Any, tokenizer: PreTrainedTokenizerBase, info: BaseInfo, *, hub_id: str) -> LoadedBase:
    """A model that is in memory already, as a base. Raises SetupError if nothing says how its texts end."""
    configured = getattr(model.generation_config, "eos_token_id", None) if model.generation_config else None
    ends = [*configured] if isinstance(configured, list) else [configured]
    eos_ids = frozenset(int(end) for end in [*ends, tokenizer.eos_token_id] if end is not None)
    if not eos_ids:
        raise SetupError(f"the base {info.name!r} has no end-of-sequence token: an expert would never stop")
    eos_id = min(eos_ids) if tokenizer.eos_token_id is None else int(tokenizer.eos_token_id)
    accepts = frozenset(inspect.signature(model.forward).parameters)
    # a sliced hidden state would make torch multiply by one copy of the vocabulary matrix a row
    model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(), *inputs[1:]))
    encoder = Encoder(tokenizer, eos_id=eos_id)
    return LoadedBase(model, tokenizer, info, hub_id, encoder, eos_id, eos_ids, accepts)


def context_tokens(config: Any) -> int:
    """Tokens the base can read, by whatever name its config gives them."""
    text = config.get_text_config(decoder=True)
    known = [getattr(text, name, None) for name in ("max_position_embeddings", "max_seq_len")]
    return int(next((tokens for tokens in known if tokens), 2048))


def pick_device(wanted: str) -> str:
    """``cuda`` where there is one, unless told otherwise. Raises SetupError for one that is not there."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise SetupError("SELFSPEC_DEVICE=cuda, but torch finds no CUDA device here")
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
