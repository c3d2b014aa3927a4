"""Which 4-bit product is used for how many rows, bitsandbytes' or one of ours: measured, for each shape, on the device.

bitsandbytes has a fused kernel of its own since 0.50, with a table of the shapes and numbers of rows at which it takes
it. Which is faster differs by device, so nothing is assumed: one of ours that fails, errs or does not clearly win is
not used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

log = logging.getLogger(__name__)

ROWS = (1, 4, 8, 16, 32, 64)  # numbers of rows are rounded up to these
_MILLISECONDS = 20  # of measuring each
_CLEAR = 0.95  # of the other's time
_TOLERANCE = 0.02  # of the largest number: sums in another order, rounded

_won: dict[tuple[object, ...], Mapping[int, str]] = {}  # so that layers of one shape are alike


class Matrix(Protocol):
    """All ways of multiplying: ours by name, and bitsandbytes'."""

    outs: int
    in_features: int
    dtype: torch.dtype
    packed: Tensor

    @property
    def ways(self) -> Mapping[str, Callable[[Tensor], Tensor]]: ...
    def stock(self, x: Tensor) -> Tensor: ...


def rounded_up(rows: int) -> int:
    """To one of ROWS; 0 where they are too many."""
    return next((most for most in ROWS if rows <= most), 0)


def ways_won(matrix: Matrix) -> Mapping[int, str]:
    """Of ROWS those at which one of ours is used, and which. Takes seconds for a new shape, nothing for a known one."""
    if matrix.packed.device.type != "cuda":  # Triton's interpreter: for its numbers, not for its time
        return dict.fromkeys(ROWS, next(iter(matrix.ways)))
    key = (matrix.packed.device, matrix.dtype, matrix.outs, matrix.in_features)
    if key not in _won:
        _won[key] = contest(matrix, _cuda_milliseconds)
        log.info("4-bit products of %d by %d by our kernels at rows up to: %s", *key[2:], _won[key] or "none")
    return _won[key]


def contest(matrix: Matrix, time_of: Callable[[Callable[[], Tensor]], float]) -> dict[int, str]:
    """Of ROWS those at which one of ours is clearly faster than bitsandbytes', and which is fastest."""
    generator = torch.Generator().manual_seed(0)
    inputs = {
        rows: torch.randn(rows, matrix.in_features, generator=generator).to(matrix.packed.device, matrix.dtype)
        for rows in ROWS
    }
    best = {rows: _CLEAR * time_of(partial(matrix.stock, x)) for rows, x in inputs.items()}
    won: dict[int, str] = {}
    for name, multiply in matrix.ways.items():
        try:
            times = {rows: _checked(matrix, multiply, x, time_of) for rows, x in inputs.items()}
        except Exception as error:  # of a compiler or driver: anything
            reason = next(iter(str(error).splitlines()), repr(error))
            log.warning("a kernel for 4-bit products (%s) is not used: %s", name, reason)
            continue
        for rows, taken in times.items():
            if taken < best[rows]:
                best[rows], won[rows] = taken, name
    return won


def _checked(
    matrix: Matrix,
    multiply: Callable[[Tensor], Tensor],
    x: Tensor,
    time_of: Callable[[Callable[[], Tensor]], float],
) -> float:
    """The time it takes. Raises ArithmeticError where it is wrong."""
    ours, theirs = multiply(x).float(), matrix.stock(x).float()
    if not float((ours - theirs).abs().max()) <= _TOLERANCE * float(theirs.abs().max()):
        raise ArithmeticError(f"it errs at {matrix.outs} by {matrix.in_features}, {len(x)} rows")
    return time_of(partial(multiply, x))


def _cuda_milliseconds(call: Callable[[], Tensor]) -> float:
    """The median, with caches emptied before each: in a model other layers' weights have passed through them."""
    from triton.testing import do_bench

    return float(do_bench(call, warmup=_MILLISECONDS // 2, rep=_MILLISECONDS, return_mode="median"))
