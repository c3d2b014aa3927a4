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


@triton.jit
def put_into_lanes(table, INTERPRETED: tl.constexpr):
    """Puts table[lane % 16] into a register of every lane, once a kernel → 0, to be added to what comes after it.

    The register is declared for the whole kernel and known by name. As an operand of ``look_up_in_lanes`` it would keep
    Triton from choosing the layout of what is looked up.
    """
    if INTERPRETED:
        return 0
    return tl.inline_asm_elementwise(
        """.reg .f32 in_lane;
        { .reg .u32 lane; .reg .u64 at; mov.u32 lane, %laneid; and.b32 lane, lane, 15;
        mul.wide.u32 at, lane, 4; add.u64 at, at, $1; ld.global.nc.f32 in_lane, [at]; }
        mov.u32 $0, 0;""",
        "=r,l", [table.to(tl.int64)], dtype=tl.int32, is_pure=False, pack=1,
    )  # fmt: skip


@triton.jit
def look_up_in_lanes(table, index, INTERPRETED: tl.constexpr):
    """table[index % 16], float32, from the lane that has it: no address is reckoned, and no memory read.

    Only five bits of an index count there, and lanes 16 to 31 have what 0 to 15 have.
    """
    if INTERPRETED:
        return tl.load(table + (index & 15))
    return tl.inline_asm_elementwise(
        "shfl.sync.idx.b32 $0, in_lane, $1, 31, 0xffffffff;", "=f,r", [index], dtype=tl.float32, is_pure=True, pack=1
    )
