"""y = x · dequantized(W)ᵀ for few rows of x, W in bitsandbytes' NF4, in Triton; W is never written out.

A weight is what bitsandbytes makes of it, bit for bit: code · scale in float32, rounded to the dtype of x. Sums are
float32. A program reads its rows of W once, for all rows of x. There are two kernels, of which a contest chooses: one
takes W byte by byte as it lies there, one in words of eight weights, with fewer instructions for each. Imported only
where kernels run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from app.engine.kernels.arithmetic import INTERPRETED, look_up, look_up_in_lanes, multiply, put_into_lanes

BLOCK = 64  # weights that share a scale
BLOCK_OUT = 32  # rows of W of one program: a layer of 4,096 outputs gives 128 programs
BLOCK_IN = 128  # weights of a row at a time
_FEWEST = 16  # rows that tensor cores multiply
WORD = 8  # weights of 32 bits
WORDS = 32  # of a row at a time


@triton.jit
def nf4_rows(
    x, packed, scales, code, bias, y, num_rows, outs, in_features, x_stride,
    ROWS: tl.constexpr, BLOCK_OUT: tl.constexpr, BLOCK_IN: tl.constexpr, BLOCK: tl.constexpr,
    HAS_BIAS: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """y[:, outputs of the program]. A byte of ``packed`` is two weights of a row, the first in its high half."""
    half: tl.constexpr = BLOCK_IN // 2
    num_scales: tl.constexpr = BLOCK_IN // BLOCK
    row = tl.arange(0, ROWS)
    out = tl.program_id(0) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    k, byte, block = tl.arange(0, BLOCK_IN), tl.arange(0, half), tl.arange(0, num_scales)
    is_row, is_out = (row < num_rows)[:, None], (out < outs)[:, None]
    x += row.to(tl.int64)[:, None] * x_stride + k[None, :]
    block_starts = block * BLOCK
    packed += out.to(tl.int64)[:, None] * (in_features // 2) + byte[None, :]
    scales += out.to(tl.int64)[:, None] * (in_features // BLOCK) + block[None, :]
    total = tl.zeros((ROWS, BLOCK_OUT), tl.float32)
    for start in range(0, in_features, BLOCK_IN):
        of_x = tl.load(x + start, mask=is_row & (start + k < in_features)[None, :], other=0.0)
        pair = tl.load(packed + start // 2, mask=is_out & (start // 2 + byte < in_features // 2)[None, :], other=0)
        scale = tl.load(scales + start // BLOCK, mask=is_out & (start + block_starts < in_features)[None, :], other=0.0)
        scale = tl.broadcast_to(scale[:, :, None], (BLOCK_OUT, num_scales, BLOCK // 2)).reshape(BLOCK_OUT, half)
        first = (look_up(code, pair >> 4, INTERPRETED) * scale).to(of_x.dtype)
        second = (look_up(code, pair & 15, INTERPRETED) * scale).to(of_x.dtype)
        even, odd = tl.split(of_x.reshape(ROWS, half, 2))
        total = multiply(even, tl.trans(first), total, INTERPRETED)
        total = multiply(odd, tl.trans(second), total, INTERPRETED)
    if HAS_BIAS:
        total += tl.load(bias + out, mask=out < outs, other=0.0).to(tl.float32)[None, :]
    y += row.to(tl.int64)[:, None] * outs + out[None, :]
    tl.store(y, total.to(y.dtype.element_ty), mask=is_row & (out < outs)[None, :])


def nf4_product(x: Tensor, packed: Tensor, scales: Tensor, code: Tensor, bias: Tensor | None) -> Tensor:
    """x [rows, in], few rows (each program holds all) → [rows, outs].

    packed: uint8, [outs · in / 2] in any shape, ``in`` a multiple of BLOCK; scales: [outs, in / BLOCK] float32; code:
    [16] float32; bias: [outs].
    """
    num_rows, in_features = x.shape
    outs = len(scales)
    x = x if x.stride(1) == 1 else x.contiguous()
    y = torch.empty(num_rows, outs, dtype=x.dtype, device=x.device)
    nf4_rows[(triton.cdiv(outs, BLOCK_OUT),)](
        x, packed, scales, code, code if bias is None else bias, y, num_rows, outs, in_features, x.stride(0),
        ROWS=max(_FEWEST, triton.next_power_of_2(num_rows)), BLOCK_OUT=BLOCK_OUT, BLOCK_IN=BLOCK_IN, BLOCK=BLOCK,
        HAS_BIAS=bias is not None, INTERPRETED=INTERPRETED,
    )  # fmt: skip
    return y


@triton.jit
def nf4_words(
    x, words, scales, code, bias, y, num_rows, outs, num_words, plane,
    ROWS: tl.constexpr, BLOCK_OUT: tl.constexpr, WORDS: tl.constexpr, WORD: tl.constexpr, BLOCK: tl.constexpr,
    IS_WHOLE: tl.constexpr, HAS_BIAS: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """y[:, outputs of the program]. ``x`` lies in eight planes [rows, words]: the e-th holds the inputs 8 w + e.

    So the eight weights of a word meet their inputs in eight products, and never change their layout: they are made
    where tensor cores want the left factor. Rows and outputs that are not there are computed as the last one.
    """
    row, word = tl.arange(0, ROWS), tl.arange(0, WORDS)
    out = tl.program_id(0) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    x += tl.minimum(row, num_rows - 1)[None, :] * num_words + word[:, None]
    of_out = tl.minimum(out, outs - 1).to(tl.int64)[:, None]
    scales += of_out * (num_words // (BLOCK // WORD)) + word[None, :] // (BLOCK // WORD)
    words += of_out * num_words + word[None, :] + put_into_lanes(code, INTERPRETED)
    total = tl.zeros((BLOCK_OUT, ROWS), tl.float32)
    for start in range(0, num_words, WORDS):
        if IS_WHOLE:
            packed, scale = tl.load(words + start), tl.load(scales + start // (BLOCK // WORD))
        else:
            is_in = start + word < num_words
            packed = tl.load(words + start, mask=is_in[None, :], other=0)
            scale = tl.load(scales + start // (BLOCK // WORD), mask=is_in[None, :], other=0.0)
        for place in tl.static_range(WORD):
            if IS_WHOLE:
                of_x = tl.load(x + place * plane + start)
            else:
                of_x = tl.load(x + place * plane + start, mask=(start + word < num_words)[:, None], other=0.0)
            index = packed >> (4 * (place ^ 1))  # the first weight of a byte is its high half
            weight = (look_up_in_lanes(code, index, INTERPRETED) * scale).to(of_x.dtype)
            total = multiply(weight, of_x, total, INTERPRETED)
    if HAS_BIAS:
        total += tl.load(bias + out, mask=out < outs, other=0.0).to(tl.float32)[:, None]
    y += row.to(tl.int64)[None, :] * outs + out[:, None]
    tl.store(y, total.to(y.dtype.element_ty), mask=(row < num_rows)[None, :] & (out < outs)[:, None])


def options(rows: int, block_out: int) -> dict[str, int]:
    """How ``nf4_words`` is compiled; of more stages, loads under way, some devices' shared memory holds none."""
    return {"num_warps": block_out // 16, "num_stages": 3 if rows == _FEWEST else 2}


def nf4_product_of_words(
    x: Tensor, packed: Tensor, scales: Tensor, code: Tensor, bias: Tensor | None, *, block_out: int
) -> Tensor:
    """As ``nf4_product``; ``block_out``: outputs of a program, 32 or 64."""
    num_rows, in_features = x.shape
    outs, num_words = len(scales), in_features // WORD
    planes = x.reshape(num_rows, num_words, WORD).permute(2, 0, 1).contiguous()
    y = torch.empty(num_rows, outs, dtype=x.dtype, device=x.device)
    rows = max(_FEWEST, triton.next_power_of_2(num_rows))
    nf4_words[(triton.cdiv(outs, block_out),)](
        planes, packed.view(-1).view(torch.int32), scales, code, code if bias is None else bias, y, num_rows, outs,
        num_words, planes.stride(0), ROWS=rows, BLOCK_OUT=block_out, WORDS=WORDS, WORD=WORD, BLOCK=BLOCK,
        IS_WHOLE=num_words % WORDS == 0, HAS_BIAS=bias is not None, INTERPRETED=INTERPRETED,
        **options(rows, block_out),
    )  # fmt: skip
    return y
