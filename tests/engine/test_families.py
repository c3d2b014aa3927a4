"""LoRA on all linear layers of every family of bases: learned, written and served as PEFT and transformers do."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor

from app.core.recipe import Recipe
from app.core.records import TrainingRow, TrainingStep
from app.engine.adapter_files import read_adapter
from app.engine.base import LoadedBase
from app.engine.forward import Forward
from app.engine.slots import SlotBank, linear_layers
from app.engine.training import TokenRow, response_loss, train_adapter
from tests.engine.batches import Batch
from tests.engine.tiny import (
    EOS,
    FAMILIES,
    VOCABULARY,
    logits_of,
    make_bank,
    make_base,
    make_model,
    peft_logits,
    with_peft,
    write_adapter,
)

pytestmark = [
    pytest.mark.parametrize("family", FAMILIES),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),  # PEFT, of Conv1D layers
]

PROMPTS = [[1, 40, 41, 42], [1, *range(60, 80)], [1, 90], [1, *range(100, 111)], [1, 7, 7, 7, 7, 7, 7]]
RECIPE = Recipe(lora_rank=4, batch_size=8, epochs=8, learning_rate=1e-2, max_length=64, warmup_fraction=0.0)
ROWS = [TrainingRow(f"the answer to question {n} is ", "positive" if n % 2 else "negative") for n in range(8)]


def forward(base: LoadedBase, bank: SlotBank, slots: list[int]) -> list[Tensor]:
    """The logits of PROMPTS in one batch, padded on the left, each row with its slot: [tokens, vocabulary] each."""
    width = max(len(prompt) for prompt in PROMPTS)
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in PROMPTS])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in PROMPTS])
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    bank.segments.set(slots, num_tokens=width)
    with torch.inference_mode():
        arguments = base.forward_arguments(attention_mask=mask, position_ids=positions, use_cache=False)
        logits = base.model(input_ids=ids, **arguments).logits
    return [row[-len(prompt) :] for row, prompt in zip(logits, PROMPTS, strict=True)]


def transformers_greedy(model: Any, prompt: list[int], *, end: int, max_new_tokens: int) -> list[int]:
    """What transformers' own loop says after ``prompt`` alone, without the end token."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=end,
        pad_token_id=0,
    )
    said: list[int] = out[0, len(prompt) :].tolist()
    return said[: said.index(end)] if end in said else said


def test_the_layers_are_those_that_peft_chooses(family: str) -> None:
    model = make_model(family)
    ours = set(linear_layers(model))
    peft = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    assert ours == {
        name.removeprefix("base_model.model.") for name, layer in peft.named_modules() if isinstance(layer, LoraLayer)
    }
    assert ours


def test_training_lowers_the_loss_and_peft_loads_the_folder(family: str, tmp_path: Path) -> None:
    base = make_base(family)
    untouched = copy.deepcopy(base.model)
    steps: list[TrainingStep] = []
    report = train_adapter(base, ROWS, recipe=RECIPE, folder=tmp_path, on_step=steps.append)
    assert steps[-1].loss < 0.8 * steps[0].loss
    assert report.num_modules == len(linear_layers(base.model)) == len(read_adapter(tmp_path).pairs)

    for (name, before), after in zip(untouched.named_parameters(), base.model.parameters(), strict=True):
        assert torch.equal(before, after), name

    bank = make_bank(base)
    bank.write(1, read_adapter(tmp_path).pairs)
    ours = Forward(base, bank.segments).log_probabilities(PROMPTS[1], 1)
    theirs = torch.log_softmax(peft_logits(untouched, tmp_path, PROMPTS[1]), dim=-1)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    loaded = PeftModel.from_pretrained(copy.deepcopy(untouched), tmp_path)
    assert loaded.peft_config["default"].base_model_name_or_path == "tiny/random"


def test_a_mixed_batch_computes_what_peft_computes(family: str, tmp_path: Path) -> None:
    """Two adapters and the bare base side by side, prompts of several lengths; then one is evicted for a third."""
    base = make_base(family)
    bare = copy.deepcopy(base.model)
    folders = {name: write_adapter(bare, tmp_path / name, seed=rank, r=rank) for rank, name in enumerate("abc", 2)}
    alone = {name: with_peft(bare, folder) for name, folder in folders.items()}
    bank = make_bank(base, num_slots=2)

    def check(slots: list[int], in_slot: dict[int, str]) -> None:
        for row, prompt, slot in zip(forward(base, bank, slots), PROMPTS, slots, strict=True):
            wanted = logits_of(alone[in_slot[slot]] if slot in in_slot else bare, prompt)
            torch.testing.assert_close(row, wanted, atol=1e-4, rtol=0)

    bank.write(1, read_adapter(folders["a"]).pairs)
    check([0, 1, 1, 0, 1], {1: "a"})
    bank.write(2, read_adapter(folders["b"]).pairs)
    check([2, 1, 0, 2, 1], {1: "a", 2: "b"})
    bank.write(1, read_adapter(folders["c"]).pairs)  # another rank in the slot of the first
    check([1, 1, 0, 2, 0], {1: "c", 2: "b"})
    bank.clear(2)
    check([1, 2, 0, 2, 0], {1: "c"})


def test_greedy_decoding_is_what_transformers_generates(family: str) -> None:
    """Rows of different prompts, lengths and ends, in one batch; most of them leave it before the last."""
    base = make_base(family)
    bare = copy.deepcopy(base.model)
    end = transformers_greedy(bare, PROMPTS[0], end=VOCABULARY, max_new_tokens=24)[5]  # a token that is really said
    base = replace(base, eos_ids=frozenset({end}))
    budgets = [24, 24, 7, 24, 12]
    wanted = [
        transformers_greedy(bare, prompt, end=end, max_new_tokens=budget)
        for prompt, budget in zip(PROMPTS, budgets, strict=True)
    ]
    assert len({len(said) for said in wanted}) >= 3, "the rows should end at different times"

    batch = Batch(base, max_batch=3)  # the others join when the first have left
    rows = [batch.ask(prompt, max_new_tokens=budget) for prompt, budget in zip(PROMPTS, budgets, strict=True)]
    batch.run()
    assert [row.token_ids for row in rows] == wanted
    for row, said, budget in zip(rows, wanted, budgets, strict=True):
        assert row.finish_reason == ("stop" if len(said) < budget else "length")


def test_decoding_with_adapters_is_each_adapter_alone(family: str, tmp_path: Path) -> None:
    base = make_base(family)
    bare = copy.deepcopy(base.model)
    folders = {name: write_adapter(bare, tmp_path / name, seed=seed) for seed, name in enumerate("abc", 1)}
    alone: dict[str | None, Any] = {None: bare, **{name: with_peft(bare, folder) for name, folder in folders.items()}}
    experts, budgets = ["b", None, "a", "c", "b"], [16, 3, 16, 6, 9]
    wanted = [
        transformers_greedy(alone[expert], prompt, end=EOS, max_new_tokens=budget)
        for prompt, expert, budget in zip(PROMPTS, experts, budgets, strict=True)
    ]
    batch = Batch(base, folders, num_slots=2)  # the third takes the slot of one that has ended
    rows = [
        batch.ask(prompt, adapter=expert, max_new_tokens=budget)
        for prompt, expert, budget in zip(PROMPTS, experts, budgets, strict=True)
    ]
    batch.run()
    assert [row.token_ids for row in rows] == wanted
    assert batch.counts["evictions"] == 1


def test_the_loss_is_that_of_each_row_alone(family: str) -> None:
    """Padding, position ids, kept logits and softcapped logits change nothing."""
    base = make_base(family)
    chance = random.Random(0)
    rows = [
        TokenRow([1, *(chance.randrange(3, VOCABULARY) for _ in range(num_prompt + num_target - 2)), EOS], num_prompt)
        for num_prompt, num_target in ((3, 5), (17, 2), (1, 9), (8, 8))
    ]
    ours = response_loss(base, base.model, rows)
    wanted = 0.0
    for row in rows:
        ids = torch.tensor([row.ids])
        logits = base.model(input_ids=ids, use_cache=False).logits[0].float()
        losses = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
        wanted += float(losses[row.num_prompt - 1 :].sum())
    assert float(ours) == pytest.approx(wanted, rel=1e-5)
