"""What turns gradients into weights: float32 masters, AdamW, and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from app.core.recipe import Recipe


class MasterWeights:
    """float32 copies that the optimizer steps, beside parameters in the base's dtype that the forward pass multiplies.

    Steps of 1e-4 would be lost in bfloat16, and so would the sum of many small gradients; multiplying in float32 would
    cost half the speed on a CPU.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._parameters = parameters
        self.weights = [torch.nn.Parameter(parameter.detach().float().clone()) for parameter in parameters]

    def take_gradients(self) -> None:
        """Add the gradients of the parameters to the masters' and forget them there."""
        for master, parameter in zip(self.weights, self._parameters, strict=True):
            if parameter.grad is not None:
                gradient = parameter.grad.float()
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                parameter.grad = None

    def give_weights(self) -> None:
        """Round the masters into the parameters and forget the gradients."""
        with torch.no_grad():
            for master, parameter in zip(self.weights, self._parameters, strict=True):
                parameter.copy_(master)
                master.grad = None


def make_optimizer(parameters: list[Any], device: torch.device) -> torch.optim.Optimizer:
    """8-bit with its state paged to the host on CUDA (QLoRA), plain elsewhere."""
    if device.type == "cuda":
        from bitsandbytes.optim.adamw import PagedAdamW8bit

        paged: torch.optim.Optimizer = PagedAdamW8bit(parameters, weight_decay=0.0)  # type: ignore[no-untyped-call]
        return paged
    return torch.optim.AdamW(parameters, weight_decay=0.0, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def rate_factor(recipe: Recipe, step: int, num_steps: int) -> float:
    """The learning rate of a step (from 0) as a share of the recipe's: linear warm-up, then the schedule."""
    warmup = math.ceil(recipe.warmup_fraction * num_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, num_steps - warmup)
    if recipe.schedule == "linear":
        return 1 - done
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0
