"""Passes beside the batch without an engine: a base, adapters in their slots, and a caller who runs them at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerBase

from app.engine.adapter_files import read_adapter
from app.engine.forward import Forward
from app.engine.passes import Passes
from app.engine.rectangle import layout_of
from tests.engine.tiny import CONTEXT, as_base, make_bank, make_model, tokenizer_of, with_peft, write_adapter

_T = TypeVar("_T")


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """A token a byte, so that what is written reads as the same tokens again."""
    specials = ["<pad>", "<s>", "</s>"]
    letters = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer_of(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=CONTEXT
    )


def writing_model(family: str) -> Any:
    """A model that writes nothing but lower-case letters, now and then a space or its end, and is sure of nothing."""
    model, tokenizer = make_model(family), byte_tokenizer()
    spoken = [*tokenizer("abcdefghijklmnopqrstuvwxyz ")["input_ids"], tokenizer.eos_token_id]
    head = model.get_output_embeddings().weight
    silent = torch.ones(len(head), dtype=torch.bool)
    silent[spoken] = False
    head[silent] = 0.0
    head[~silent] *= 0.4
    return model


def write_writing_base(folder: Path) -> Path:
    """It as a folder."""
    writing_model("llama").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


class Beside:
    """``alone`` are the models that PEFT makes of the same base and adapters; None is the bare base."""

    def __init__(self, model: Any, folder: Path, *, adapters: str = "", **sizes: int) -> None:
        self.base = as_base(model, byte_tokenizer())
        bare = copy.deepcopy(self.base.model)
        folders = {name: write_adapter(bare, folder / name, seed=seed) for seed, name in enumerate(adapters, 1)}
        self.alone: Mapping[str | None, Any] = {
            None: bare,
            **{name: with_peft(bare, folder) for name, folder in folders.items()},
        }
        self._layout = layout_of(self.base.model, self.base.eos_id)
        bank = make_bank(self.base)
        self._slot_of: dict[str | None, int] = {None: 0}
        for slot, (name, path) in enumerate(folders.items(), 1):
            bank.write(slot, read_adapter(path).pairs)
            self._slot_of[name] = slot
        self._forward = Forward(self.base, bank.segments)
        self.num_passes = 0

    def passes(self, *, num_tokens: int = 512, num_rows: int = 8, num_bytes: int = 1 << 28) -> Passes:
        name_of = {slot: name for name, slot in self._slot_of.items()}
        return Passes(self.base, self._layout, self._forward, self._run, name_of.get, num_tokens, num_rows, num_bytes)

    def _run(self, adapter: str | None, compute: Callable[[int], _T]) -> _T:
        self.num_passes += 1
        with torch.inference_mode():
            return compute(self._slot_of[adapter])
