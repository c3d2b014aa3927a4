"""Tiny random bases of many architectures, a tokenizer built here and adapters for them: no weights, no network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MptConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
)

from app.core.records import BaseInfo
from app.engine.base import LoadedBase, wrap_model
from app.engine.slots import SlotBank

VOCABULARY = 288  # 256 bytes, three special tokens and some merges
PAD, BOS, EOS = 0, 1, 2
CONTEXT = 128
WINDOW = 8  # of the families whose attention slides

_ENDS: dict[str, Any] = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    **_ENDS,
}
_FALCON = {key: value for key, value in _SIZES.items() if key not in ("intermediate_size", "num_key_value_heads")}
_GEMMA3_LAYERS = ["sliding_attention", "full_attention"]

FAMILIES: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_SIZES),
    "llama-tied": lambda: LlamaConfig(**_SIZES, tie_word_embeddings=True),
    "mpt": lambda: MptConfig(vocab_size=VOCABULARY, d_model=32, n_layers=2, n_heads=4, max_seq_len=CONTEXT, **_ENDS),
    "falcon": lambda: FalconConfig(**_FALCON, new_decoder_architecture=False, multi_query=True, alibi=False),
    "falcon-new": lambda: FalconConfig(**_FALCON, new_decoder_architecture=True, num_kv_heads=2, alibi=False),
    "falcon-alibi": lambda: FalconConfig(**_FALCON, multi_query=False, parallel_attn=False, bias=True, alibi=True),
    "qwen2": lambda: Qwen2Config(**_SIZES),
    "qwen3": lambda: Qwen3Config(**_SIZES, head_dim=8),
    "gemma2": lambda: Gemma2Config(**_SIZES, head_dim=8, sliding_window=WINDOW, final_logit_softcapping=3.0),
    "gemma3": lambda: Gemma3TextConfig(
        **_SIZES, head_dim=8, sliding_window=WINDOW, layer_types=_GEMMA3_LAYERS, final_logit_softcapping=3.0
    ),
    "mistral": lambda: MistralConfig(**_SIZES, sliding_window=WINDOW),
    # not asked for, but shaped otherwise: Conv1D layers, layers that see rows flattened, shared experts
    "gpt2": lambda: GPT2Config(vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=4, **_ENDS),
    "opt": lambda: OPTConfig(**_FALCON, ffn_dim=64, word_embed_proj_dim=32),
    "qwen2-moe": lambda: Qwen2MoeConfig(
        **_SIZES, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=32
    ),
}

_CORPUS = [
    "the revenue of the third quarter rose and the margin of the firm fell while the board raised its guidance",
    "question answer instruction response input output positive negative neutral",
]


def make_tokenizer(*, template: str | None = None) -> PreTrainedTokenizerBase:
    """Byte-level, so that every text is a sequence of its tokens; ``template``: "<s> $A" adds a start token."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    if template is not None:
        tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=[("<s>", BOS), ("</s>", EOS)])
    return tokenizer_of(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=CONTEXT
    )


def tokenizer_of(**arguments: Any) -> PreTrainedTokenizerBase:
    """A tokenizer from its file or its object, with exactly the special tokens that are named."""
    return PreTrainedTokenizerFast(**arguments)  # type: ignore[no-untyped-call]


def make_model(family: str, *, seed: int = 0, **sizes: int) -> Any:
    """A model with weights large enough that every position and every layer tells; ``sizes`` changes its config."""
    torch.manual_seed(seed)
    config = FAMILIES[family]()
    config.update(sizes)
    model: Any = AutoModelForCausalLM.from_config(config).eval()  # type: ignore[no-untyped-call]
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.requires_grad_(False)


def make_base(family: str = "llama", *, template: str | None = "<s> $A", seed: int = 0) -> LoadedBase:
    """The model as a base, without slots."""
    return as_base(make_model(family, seed=seed), make_tokenizer(template=template))


def as_base(model: Any, tokenizer: PreTrainedTokenizerBase) -> LoadedBase:
    """Any model as a base."""
    info = BaseInfo("tiny", "0123456789abcdef", "none", "float32", "cpu", CONTEXT, model.num_parameters())
    return wrap_model(model, tokenizer, info, hub_id="tiny/random")


def make_bank(base: LoadedBase, *, num_slots: int = 3, max_rank: int = 8) -> SlotBank:
    """Slots on the base's model."""
    return SlotBank(base.model, num_slots=num_slots, max_rank=max_rank, dtype=torch.float32)


def write_base(folder: Path, family: str = "llama", *, seed: int = 0, **sizes: int) -> Path:
    """Model and tokenizer as a folder."""
    make_model(family, seed=seed, **sizes).save_pretrained(folder)
    make_tokenizer(template="<s> $A").save_pretrained(folder)
    return folder


def write_adapter(model: Any, folder: Path, *, seed: int = 1, scale: float = 0.2, **config: Any) -> Path:
    """A PEFT folder with random weights on all linear layers of (a copy of) ``model``, written by PEFT itself."""
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **config}
    peft = get_peft_model(copy.deepcopy(model), LoraConfig(**settings), autocast_adapter_dtype=False)
    torch.manual_seed(seed)
    for name, parameter in peft.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=scale)
    peft.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def with_peft(model: Any, folder: Path | None) -> Any:
    """A copy of ``model`` with an adapter as PEFT loads it; None: the bare base."""
    alone = copy.deepcopy(model)
    return alone if folder is None else PeftModel.from_pretrained(alone, folder, autocast_adapter_dtype=False).eval()


def logits_of(model: Any, prompt_ids: Sequence[int]) -> Tensor:
    """Logits [tokens, vocabulary] of one prompt alone."""
    with torch.inference_mode():
        ids = torch.tensor([list(prompt_ids)], device=model.device)
        logits: Tensor = model(input_ids=ids, use_cache=False).logits[0]
    return logits


def peft_logits(model: Any, folder: Path | None, prompt_ids: Sequence[int]) -> Tensor:
    """What PEFT computes for one prompt alone on a copy of ``model``."""
    return logits_of(with_peft(model, folder), prompt_ids)
