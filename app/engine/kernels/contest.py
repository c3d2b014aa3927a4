"""For how many rows our 4-bit product is used in place of bitsandbytes': measured, for each shape, on the device.

bitsandbytes has a fused kernel of its own since 0.50, with a table of the shapes and numbers of rows at which it takes
it. Which is faster differs by device, so nothing is assumed: where ours fails, errs or does not clearly win, it is not
used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

log = logging.getLogger(__name__)

ROWS = (1, 4, 8, 16, 32, 64)  # numbers of rows are rounded up to these
_MILLISECONDS = 20  # of measuring each
_CLEAR = 0.95  # of the other's time
_TOLERANCE = 0.02  # of the largest number: sums in another order, rounded

_won: dict[tuple[object, ...], frozenset[int]] = {}  # so that layers of one shape are alike


class Matrix(Protocol):
    """Both ways of multiplying."""

    outs: int
    in_features: int
    dtype: torch.dtype
    packed: Tensor

    def fused(self, x: Tensor) -> Tensor: ...
    def stock(self, x: Tensor) -> Tensor: ...


def rounded_up(rows: int) -> int:
    """To one of ROWS; 0 where they are too many."""
    return next((most for most in ROWS if rows <= most), 0)


def rows_won(matrix: Matrix) -> frozenset[int]:
    """Those of ROWS at which ours is used. Takes a few seconds for a new shape, nothing for one that is known."""
    if matrix.packed.device.type != "cuda":
        return frozenset(ROWS)  # Triton's interpreter: for its numbers, not for its time
    key = (matrix.packed.device, matrix.dtype, matrix.outs, matrix.in_features)
    if key not in _won:
        try:
            _won[key] = contest(matrix, _cuda_milliseconds)
        except Exception as error:  # of a compiler or driver: anything
            log.warning("4-bit products are bitsandbytes': %s", next(iter(str(error).splitlines()), repr(error)))
            _won[key] = frozenset()
        log.info("4-bit products of %d by %d by our kernel at rows up to: %s", *key[2:], sorted(_won[key]) or "none")
    return _won[key]


def contest(matrix: Matrix, time_of: Callable[[Callable[[], Tensor]], float]) -> frozenset[int]:
    """Those of ROWS at which ours is clearly faster. Raises ArithmeticError where it is wrong at any."""
    generator = torch.Generator().manual_seed(0)
    won = set()
    for rows in ROWS:
        x = torch.randn(rows, matrix.in_features, generator=generator).to(matrix.packed.device, matrix.dtype)
        ours, theirs = matrix.fused(x).float(), matrix.stock(x).float()
        if not float((ours - theirs).abs().max()) <= _TOLERANCE * float(theirs.abs().max()):
            raise ArithmeticError(f"ours errs at {matrix.outs} by {matrix.in_features}, {rows} rows")
        if time_of(partial(matrix.fused, x)) < _CLEAR * time_of(partial(matrix.stock, x)):
            won.add(rows)
    return frozenset(won)


def _cuda_milliseconds(call: Callable[[], Tensor]) -> float:
    """The median, with caches emptied before each: in a model other layers' weights have passed through them."""
    from triton.testing import do_bench

    return float(do_bench(call, warmup=_MILLISECONDS // 2, rep=_MILLISECONDS, return_mode="median"))
