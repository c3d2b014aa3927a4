"""Learning one adapter: LoRA on every linear layer, loss on the response only (paper App. A and C; QLoRA).

Batches come in the order of ``training_batches``; what one step learns from passes in groups of like length. A killed
training goes on from its last checkpoint to the same losses and the same weights.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor

from app.core.errors import Fault, StageFailed
from app.core.recipe import Recipe
from app.core.records import PLAIN, TrainingPlan, TrainingReport, TrainingRow, TrainingStep
from app.engine.adapter_files import ORIGIN_FILE
from app.engine.base import LoadedBase
from app.engine.checkpoints import Checkpoints
from app.engine.memory import peak_bytes
from app.engine.optimizer import MasterWeights, make_optimizer, rate_factor, set_rate
from app.engine.recompute import recomputed, recomputes
from app.engine.training_batches import BatchOrder, micro_batches
from app.engine.training_loss import response_loss
from app.engine.training_rows import TokenRow, TokenRows, encode_row
from app.engine.training_start import WEIGHTS_FILE, give_start, lora_config, read_start

__all__ = ["MasterWeights", "TokenRow", "encode_row", "rate_factor", "response_loss", "train_adapter"]

_EAGER_TOKENS = 512  # rows up to this length; eager attention keeps length² numbers a head
_PASS_TOKENS = {"cpu": 96, "cuda": 4096}  # what a pass costs beside its tokens, in tokens: on a CPU as measured


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
    """Train on ``rows`` and write a PEFT folder; the base comes back as it was.

    Raises what ``AdapterTrainer.train`` says, and StageFailed if no row fits.
    """
    encoded = TokenRows(base, rows, max_length=recipe.max_length)
    if len(encoded) == 0:
        raise StageFailed("adapter", "no row fits max_length", fault=Fault.USER, param="recipe.max_length")
    start = None if plan.start is None else read_start(base, Path(plan.start), recipe)
    tokens = max(encoded.longest, min(recipe.micro_batch_tokens, encoded.num_tokens))
    is_lean = recomputes(base, recipe, tokens=tokens, longest=encoded.longest)
    torch.manual_seed(recipe.seed)
    with ExitStack() as stack:
        stack.enter_context(_attention_for(base, encoded.longest))
        model = stack.enter_context(_lora(base, recipe))
        if start is not None:
            give_start(model, start)
        if is_lean:
            stack.enter_context(recomputed(model))
        training = _Training(base, model, encoded, recipe=recipe, plan=plan)
        if checkpoints is not None:
            training.keep(Checkpoints(checkpoints, digest=_digest(base, encoded, recipe, plan)))
        training.run(on_step)
        _save(base, model, folder)
    return training.report()


@contextmanager
def _lora(base: LoadedBase, recipe: Recipe) -> Iterator[Any]:
    """The base with new LoRA layers, which go again."""
    model = get_peft_model(base.model, lora_config(recipe), autocast_adapter_dtype=False)
    try:
        for layer in model.modules():
            if isinstance(layer, LoraLayer):
                layer.lora_dropout.train()  # the recipe's; layers of the base drop nothing, as when they serve
        yield model
    finally:
        model.unload()
        base.model.eval().requires_grad_(False)


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


class _Training:
    """One training and its whole state."""

    def __init__(self, base: LoadedBase, model: Any, rows: TokenRows, *, recipe: Recipe, plan: TrainingPlan) -> None:
        self._base, self._model, self._rows, self._recipe = base, model, rows, recipe
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._masters = MasterWeights(self._parameters)
        self._optimizer = make_optimizer(self._masters.weights, base.device)
        self._order = BatchOrder(
            rows.is_seed, batch_size=recipe.batch_size, seed_share=plan.seed_share, seed=recipe.seed
        )
        self._num_steps = plan.max_steps or self._order.steps_an_epoch * recipe.epochs
        self._steps: list[TrainingStep] = []
        self._checkpoints: Checkpoints | None = None

    def keep(self, checkpoints: Checkpoints) -> None:
        """Go on from what is there, and write there."""
        self._checkpoints = checkpoints
        if (state := checkpoints.read()) is not None:
            self._restore(state)

    def run(self, on_step: Callable[[TrainingStep], None]) -> None:
        """To the end. ``on_step`` is told of the steps that a checkpoint holds first."""
        for step in self._steps:
            on_step(step)
        begun = time.monotonic() - (self._steps[-1].seconds if self._steps else 0.0)
        if self._base.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._base.device)
        for positions in itertools.islice(self._order.batches(), len(self._steps), self._num_steps):
            step = self._step([self._rows[position] for position in positions], begun=begun)
            self._steps.append(step)
            if self._checkpoints is not None and step.step % self._recipe.checkpoint_steps == 0:
                self._checkpoints.write(self._state())
            on_step(step)

    def report(self) -> TrainingReport:
        """Once it has run."""
        first, last = self._steps[0], self._steps[-1]
        return TrainingReport(
            num_steps=len(self._steps),
            num_rows=len(self._rows),
            num_dropped=self._rows.num_dropped,
            tokens=last.tokens,
            seconds=last.seconds,
            first_loss=first.loss,
            last_loss=last.loss,
            num_parameters=sum(parameter.numel() for parameter in self._parameters),
            num_modules=len(self._parameters) // 2,
            peak_bytes=last.memory_bytes,
        )

    def _step(self, batch: Sequence[TokenRow], *, begun: float) -> TrainingStep:
        number, before = len(self._steps) + 1, self._steps[-1] if self._steps else None
        loss = self._gradients(batch)
        torch.nn.utils.clip_grad_norm_(self._masters.weights, self._recipe.max_grad_norm, foreach=True)
        rate = self._recipe.learning_rate * rate_factor(self._recipe, number - 1, self._num_steps)
        set_rate(self._optimizer, rate)
        self._optimizer.step()
        self._masters.give_weights()
        return TrainingStep(
            number,
            self._num_steps,
            number / self._order.steps_an_epoch,
            float(loss),
            rate,
            (before.tokens if before else 0) + sum(len(row.ids) for row in batch),
            time.monotonic() - begun,
            max(before.memory_bytes if before else 0, peak_bytes(self._base.device)),
        )

    def _gradients(self, batch: Sequence[TokenRow]) -> Tensor:
        """Of the mean loss over the batch's target tokens, by weight; returns that loss."""
        targets = sum(row.weight * row.num_target for row in batch) or 1.0
        loss = torch.zeros((), device=self._base.device)
        lengths = [len(row.ids) for row in batch]
        pass_tokens = _PASS_TOKENS[self._base.device.type]
        for group in micro_batches(lengths, max_tokens=self._recipe.micro_batch_tokens, pass_tokens=pass_tokens):
            part = response_loss(self._base, self._model, [batch[position] for position in group]) / targets
            part.backward()  # type: ignore[no-untyped-call]
            self._masters.take_gradients()
            loss += part.detach()
        return loss

    def _state(self) -> dict[str, Any]:
        device = self._base.device
        return {
            "steps": [asdict(step) for step in self._steps],
            "weights": list(self._masters.weights),
            "optimizer": self._optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._steps = [TrainingStep(**step) for step in state["steps"]]
        with torch.no_grad():
            for master, saved in zip(self._masters.weights, state["weights"], strict=True):
                master.copy_(saved)
        self._masters.give_weights()
        self._optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if state["cuda_random"] is not None:
            torch.cuda.set_rng_state(state["cuda_random"], self._base.device)


def _digest(base: LoadedBase, rows: TokenRows, recipe: Recipe, plan: TrainingPlan) -> str:
    """Of all that a training follows from."""
    start = "" if plan.start is None else hashlib.sha256((Path(plan.start) / WEIGHTS_FILE).read_bytes()).hexdigest()
    info = (base.info.fingerprint, base.info.dtype, base.device.type, torch.__version__)
    parts = (*info, rows.digest, recipe.model_dump_json(), plan.max_steps, plan.seed_share, start)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _save(base: LoadedBase, model: Any, folder: Path) -> None:
    model.peft_config["default"].base_model_name_or_path = base.hub_id
    model.peft_config["default"].target_modules = sorted(model.peft_config["default"].target_modules)
    model.save_pretrained(folder, save_embedding_layers=False)  # else PEFT asks the hub about the vocabulary
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    origin = {"base": base.info.name, "base_fingerprint": base.info.fingerprint, "dtype": base.info.dtype}
    (folder / ORIGIN_FILE).write_text(json.dumps(origin, indent=1))
