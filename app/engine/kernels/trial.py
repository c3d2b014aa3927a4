"""Whether the kernels compile on a device and give torch's numbers there."""

from __future__ import annotations

import torch
from torch import Tensor

from app.engine.kernels.grouped import add_updates
from app.engine.tiles import Tiler

_OUTS, _IN, _RANK, _SLOTS = (96, 32), 128, 8, (2, 0, 1, 2)
_ROUNDING = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}  # of the largest number


def agrees(device: torch.device, dtype: torch.dtype) -> bool:
    """For one token a row and for several, up to rounding; bare rows must not change at all."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    a, b = random(len(_OUTS), 2, _RANK, _IN) / _IN**0.5, random(2, _RANK, sum(_OUTS)) / _RANK**0.5
    ranks = torch.full((len(_OUTS), 2), _RANK, dtype=torch.int32, device=device)
    for num_tokens in (1, 40):
        x, before = random(len(_SLOTS) * num_tokens, _IN), random(len(_SLOTS) * num_tokens, sum(_OUTS))
        y, bare = before.clone(), slice(num_tokens, 2 * num_tokens)
        tiles = Tiler(2, device).tiles(_SLOTS, num_tokens)
        add_updates(y.split(_OUTS, dim=1), x, whole=y, a=a, b=b, ranks=ranks, tiles=tiles)
        wanted = before + _updates(x, a, b, num_tokens)
        error = (y - wanted).abs().max() / wanted.abs().max()
        if not torch.equal(y[bare], before[bare]) or not float(error) < _ROUNDING[dtype]:
            return False
    return True


def _updates(x: Tensor, a: Tensor, b: Tensor, num_tokens: int) -> Tensor:
    rows = []
    for slot, of_row in zip(_SLOTS, x.split(num_tokens), strict=True):
        parts = [
            of_row @ of_member[slot - 1].T @ of_b[slot - 1]
            for of_member, of_b in zip(a, b.split(_OUTS, dim=2), strict=True)
        ]
        rows.append(torch.cat(parts, dim=1) * bool(slot))
    return torch.cat(rows)
