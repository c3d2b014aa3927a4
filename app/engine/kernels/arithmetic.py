"""What kernels share: products of tiles."""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = bool(triton.knobs.runtime.interpret)


@triton.jit
def multiply(a, b, total, INTERPRETED: tl.constexpr):
    """total + a · b, summed in float32; float32 factors are not shortened.

    Triton's interpreter multiplies the bits of bfloat16 factors as if they were whole numbers, so there they are made
    float32 first, which gives what a GPU gives: products of two of them are exact in float32.
    """
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision="ieee")


@triton.jit
def look_up(table, index, INTERPRETED: tl.constexpr):
    """table[index], float32, from the first-level cache.

    As a plain load inside a loop Triton would fetch every single number asynchronously into shared memory and read it
    from there: two accesses for one.
    """
    if INTERPRETED:
        return tl.load(table + index)
    address = table.to(tl.int64) + 4 * index.to(tl.int64)
    return tl.inline_asm_elementwise(
        "ld.global.nc.f32 $0, [$1];", "=f,l", [address], dtype=tl.float32, is_pure=True, pack=1
    )
