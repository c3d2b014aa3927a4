"""The loss of a few rows in one pass: padded on the left, logits computed for the response tokens alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from app.engine.base import LoadedBase
from app.engine.training_rows import TokenRow


def response_loss(base: LoadedBase, model: Any, rows: Sequence[TokenRow]) -> Tensor:
    """Summed negative log-likelihood of all target tokens of ``rows``, nats, each row's times its weight."""
    width = max(len(row.ids) for row in rows)
    kept = max(row.num_target for row in rows) + 1  # the position before a target predicts it
    ids = torch.tensor([[base.eos_id] * (width - len(row.ids)) + row.ids for row in rows], device=base.device)
    mask = torch.tensor([[0] * (width - len(row.ids)) + [1] * len(row.ids) for row in rows], device=base.device)
    is_target = torch.tensor([[False] * (kept - 1 - row.num_target) + [True] * row.num_target for row in rows])
    targets = torch.tensor([token for row in rows for token in row.ids[row.num_prompt :]], device=base.device)
    weights = torch.tensor([row.weight for row in rows for _ in range(row.num_target)], device=base.device)
    arguments = base.forward_arguments(
        attention_mask=mask, position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0), use_cache=False, logits_to_keep=kept
    )
    places = is_target.flatten().nonzero().flatten().to(base.device)  # among rows × (kept - 1) positions
    with _head_at(model, places, kept=kept):
        logits = model(input_ids=ids, **arguments).logits  # [1, targets, vocabulary]
    return F.cross_entropy(logits[0].float(), targets, reduction="none") @ weights


@contextmanager
def _head_at(model: Any, places: Tensor, *, kept: int) -> Iterator[None]:
    """Let the head, often the widest layer, see only ``places`` of the last ``kept`` positions but one of all rows."""

    def choose(_: torch.nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = arguments[0][:, -kept:-1]  # [rows, kept - 1, width]
        return (hidden.flatten(0, 1)[places].unsqueeze(0), *arguments[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()
