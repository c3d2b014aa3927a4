"""Learning one adapter: LoRA on every linear layer, loss on the response only (paper App. A and C; QLoRA).

Rows are shuffled by the recipe's seed, grouped by length within an optimizer step and padded on the left, so that the
responses stand together at the right and logits are computed for them alone.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.nn import functional as F

from app.core.errors import Fault, StageFailed
from app.core.recipe import Recipe
from app.core.records import PLAIN, TrainingPlan, TrainingReport, TrainingRow, TrainingStep
from app.engine.adapter_files import ORIGIN_FILE
from app.engine.base import LoadedBase

_EAGER_TOKENS = 512  # rows up to this length; eager attention keeps length² numbers a head


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A row as token ids; ``num_prompt`` of them are the prompt, the last is end-of-sequence."""

    ids: list[int]
    num_prompt: int

    @property
    def num_target(self) -> int:
        return len(self.ids) - self.num_prompt


def train_adapter(
    base: LoadedBase,
    rows: Iterable[TrainingRow],
    *,
    recipe: Recipe,
    folder: Path,
    on_step: Callable[[TrainingStep], None],
    plan: TrainingPlan = PLAIN,
    checkpoints: Path | None = None,
) -> TrainingReport:
    """Train on ``rows`` and write a PEFT folder; the base comes back as it was."""
    encoded = [encode_row(base, row) for row in rows]
    fitting = [row for row in encoded if len(row.ids) <= recipe.max_length]
    if not fitting:
        raise StageFailed("adapter", "no row fits max_length", fault=Fault.USER, param="recipe.max_length")
    torch.manual_seed(recipe.seed)
    config = LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    longest = max(len(row.ids) for row in fitting)
    with _attention_for(base, longest):
        model = get_peft_model(base.model, config, autocast_adapter_dtype=False)
        try:
            num_dropped = len(encoded) - len(fitting)
            report = _loop(base, model, fitting, recipe=recipe, on_step=on_step, num_dropped=num_dropped)
            _save(base, model, folder)
        finally:
            model.unload()
            base.model.eval().requires_grad_(False)
    return report


class MasterWeights:
    """float32 copies that the optimizer steps, beside parameters in the base's dtype that the forward pass multiplies.

    Steps of 1e-4 would be lost in bfloat16; multiplying in float32 would cost half the speed on a CPU.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._parameters = parameters
        self.weights = [torch.nn.Parameter(parameter.detach().float().clone()) for parameter in parameters]

    def take_gradients(self) -> None:
        """Move the gradients of the parameters to the masters."""
        for master, parameter in zip(self.weights, self._parameters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None

    def give_weights(self) -> None:
        """Round the masters into the parameters."""
        with torch.no_grad():
            for master, parameter in zip(self.weights, self._parameters, strict=True):
                parameter.copy_(master)


@contextmanager
def _attention_for(base: LoadedBase, longest: int) -> Iterator[None]:
    """Short rows on a CPU train faster through plain matrix products than through torch's fused attention."""
    usual = base.model.config._attn_implementation
    if base.device.type == "cpu" and longest <= _EAGER_TOKENS:
        base.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        base.model.set_attn_implementation(usual)


def encode_row(base: LoadedBase, row: TrainingRow) -> TokenRow:
    """Prompt, target and end-of-sequence as ids; without the last an expert would never stop."""
    prompt = base.encode(row.prompt)
    return TokenRow([*prompt, *base.encode_continuation(row.target), base.eos_id], len(prompt))


def _loop(
    base: LoadedBase,
    model: Any,
    rows: Sequence[TokenRow],
    *,
    recipe: Recipe,
    on_step: Callable[[TrainingStep], None],
    num_dropped: int,
) -> TrainingReport:
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.lora_dropout.train()  # the recipe's; layers of the base drop nothing, as when they serve
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    masters = MasterWeights(parameters)
    optimizer = _optimizer(base, masters.weights, recipe)
    steps_an_epoch = math.ceil(len(rows) / recipe.batch_size)
    num_steps = steps_an_epoch * recipe.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(recipe, step, num_steps))
    started, tokens, losses = time.monotonic(), 0, []
    for step, batch in enumerate(_batches(rows, recipe), start=1):
        num_targets = sum(row.num_target for row in batch)
        loss = 0.0
        for micro in _micro_batches(batch, recipe.micro_batch_tokens):
            part = response_loss(base, model, micro) / num_targets
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.item()
        masters.take_gradients()
        torch.nn.utils.clip_grad_norm_(masters.weights, recipe.max_grad_norm)
        rate = float(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
        masters.give_weights()
        tokens += sum(len(row.ids) for row in batch)
        losses.append(loss)
        seconds = time.monotonic() - started
        on_step(TrainingStep(step, num_steps, step / steps_an_epoch, loss, rate, tokens, seconds))
    return TrainingReport(
        num_steps=num_steps,
        num_rows=len(rows),
        num_dropped=num_dropped,
        tokens=tokens,
        seconds=time.monotonic() - started,
        first_loss=losses[0],
        last_loss=losses[-1],
        num_parameters=sum(parameter.numel() for parameter in parameters),
        num_modules=len(parameters) // 2,
    )


def response_loss(base: LoadedBase, model: Any, rows: Sequence[TokenRow]) -> Tensor:
    """Summed negative log-likelihood of all target tokens of ``rows``, nats."""
    width = max(len(row.ids) for row in rows)
    kept = max(row.num_target for row in rows) + 1  # the position before a target predicts it
    ids = torch.tensor([[base.eos_id] * (width - len(row.ids)) + row.ids for row in rows], device=base.device)
    mask = torch.tensor([[0] * (width - len(row.ids)) + [1] * len(row.ids) for row in rows], device=base.device)
    labels = torch.tensor(
        [[-100] * (width - row.num_target) + row.ids[row.num_prompt :] for row in rows], device=base.device
    )
    arguments = base.forward_arguments(
        attention_mask=mask, position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0), use_cache=False, logits_to_keep=kept
    )
    logits = model(input_ids=ids, **arguments).logits[:, -kept:]  # [rows, kept, vocabulary]
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels[:, -(kept - 1) :].flatten(), ignore_index=-100, reduction="sum"
    )


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


def _batches(rows: Sequence[TokenRow], recipe: Recipe) -> Iterator[list[TokenRow]]:
    chance = random.Random(recipe.seed)
    for _ in range(recipe.epochs):
        shuffled = list(rows)
        chance.shuffle(shuffled)
        for start in range(0, len(shuffled), recipe.batch_size):
            yield shuffled[start : start + recipe.batch_size]


def _micro_batches(batch: Sequence[TokenRow], max_tokens: int) -> Iterator[list[TokenRow]]:
    """Rows of like length together, at most ``max_tokens`` padded tokens (one row at least)."""
    group: list[TokenRow] = []
    for row in sorted(batch, key=lambda row: len(row.ids)):
        if group and len(row.ids) * (len(group) + 1) > max_tokens:
            yield group
            group = []
        group.append(row)
    yield group


def _optimizer(base: LoadedBase, parameters: list[Any], recipe: Recipe) -> torch.optim.Optimizer:
    if base.device.type == "cuda":
        from bitsandbytes.optim.adamw import PagedAdamW8bit

        paged: torch.optim.Optimizer = PagedAdamW8bit(  # type: ignore[no-untyped-call]
            parameters, lr=recipe.learning_rate, weight_decay=0.0
        )
        return paged
    return torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.0)


def _save(base: LoadedBase, model: Any, folder: Path) -> None:
    model.peft_config["default"].base_model_name_or_path = base.hub_id
    model.peft_config["default"].target_modules = sorted(model.peft_config["default"].target_modules)
    model.save_pretrained(folder, save_embedding_layers=False)  # else PEFT asks the hub about the vocabulary
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    origin = {"base": base.info.name, "base_fingerprint": base.info.fingerprint, "dtype": base.info.dtype}
    (folder / ORIGIN_FILE).write_text(json.dumps(origin, indent=1))
