"""Where training begins: a new LoRA on every linear layer, or the weights of an adapter that was learned before."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import load_file
from torch import Tensor

from app.core.errors import AdapterRefused, InvalidInput, Problem
from app.core.recipe import Recipe
from app.engine.adapter_files import read_adapter
from app.engine.base import LoadedBase

WEIGHTS_FILE = "adapter_model.safetensors"


def lora_config(recipe: Recipe) -> LoraConfig:
    """As PEFT takes it."""
    return LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def read_start(base: LoadedBase, folder: Path, recipe: Recipe) -> dict[str, Tensor]:
    """The matrices of an adapter to go on from, by their names in its file.

    Raises InvalidInput if its rank or alpha is not the recipe's, AdapterRefused if it is of another base.
    """
    fingerprint = read_adapter(folder).base_fingerprint
    if fingerprint not in (None, base.info.fingerprint):
        raise AdapterRefused(f"adapter {folder.name} was trained on another base: {fingerprint}", param="adapter")
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if problems := list(_differences(config, recipe)):
        raise InvalidInput(problems)
    return load_file(folder / WEIGHTS_FILE)


def _differences(config: Mapping[str, Any], recipe: Recipe) -> Iterator[Problem]:
    for knob, key in (("lora_rank", "r"), ("lora_alpha", "lora_alpha")):
        wanted, found = getattr(recipe, knob), config[key]
        if wanted != found:
            reason = f"is {wanted}, but the adapter that training is to go on from has {found}; set it to {found}"
            yield Problem(f"recipe.{knob}", f"{reason}, or iteration_mode to fresh")


def give_start(model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Put the matrices into a PEFT model. Raises AdapterRefused unless they are exactly its own."""
    places = {name.replace(".default.", "."): parameter for name, parameter in model.named_parameters()}
    places = {name: parameter for name, parameter in places.items() if parameter.requires_grad}
    if {name: tensor.shape for name, tensor in tensors.items()} != {name: each.shape for name, each in places.items()}:
        raise AdapterRefused("the adapter to go on from has other layers than the recipe's", param="adapter")
    with torch.no_grad():
        for name, tensor in tensors.items():
            places[name].copy_(tensor)
