"""The kernels become machine code for GPUs of several generations, on a machine without any."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.kernels.conftest import IS_INTERPRETED, needs_triton

pytestmark = [needs_triton, pytest.mark.skipif(IS_INTERPRETED, reason="the interpreter compiles nothing")]

_MULTIPLES = ("outs", "in_features", "x_stride", "num_words", "plane")  # of 16, as in every large base
GENERATIONS = {80: 164, 89: 100, 90: 228}  # compute capability: KiB of shared memory


def compiled(kernel: Any, pointers: dict[str, str], numbers: dict[str, int], generation: int, **options: int) -> Any:
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    signature = {name: pointers.get(name) or ("constexpr" if name in numbers else "i32") for name in names}
    sizes = [name for name in names if name in _MULTIPLES]
    aligned: Any = {(names.index(name),): [["tt.divisibility", 16]] for name in [*pointers, *sizes]}
    source = ASTSource(fn=kernel, signature=signature, constexprs=numbers, attrs=aligned)
    return compile(source, target=GPUTarget("cuda", generation, 32), options=options)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_updates_compile(generation: int) -> None:
    from app.engine.kernels.grouped import expand, shrink

    tables = {"ranks": "*i32", "order": "*i32", "table": "*i32", "h": "*fp32"}
    sizes = {"MAX_RANK": 16, "RANK": 16, "HEIGHT": 16, "INTERPRETED": 0}
    of_shrink = compiled(shrink, {"x": "*bf16", "a": "*bf16", **tables}, {**sizes, "BLOCK_IN": 64}, generation)
    of_expand = compiled(
        expand,
        {"y": "*bf16", "b": "*bf16", "blocks": "*i32", **tables},
        {**sizes, "BLOCK_OUT": 64, "SPLITS": 4},
        generation,
    )
    for code in (of_shrink, of_expand):
        assert code.asm["cubin"]
        assert code.metadata.shared <= 1024 * GENERATIONS[generation]


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("rows", [16, 64])
def test_products_of_four_bits_compile(rows: int, generation: int) -> None:
    from app.engine.kernels.nf4 import BLOCK, BLOCK_IN, BLOCK_OUT, WORD, WORDS, nf4_rows, nf4_words, options

    pointers = {"x": "*bf16", "scales": "*fp32", "code": "*fp32", "bias": "*bf16", "y": "*bf16"}
    sizes = {"ROWS": rows, "BLOCK": BLOCK, "HAS_BIAS": 1, "INTERPRETED": 0}
    by_bytes = {**sizes, "BLOCK_OUT": BLOCK_OUT, "BLOCK_IN": BLOCK_IN}
    by_words = {**sizes, "WORD": WORD, "WORDS": WORDS}
    codes = [compiled(nf4_rows, {**pointers, "packed": "*u8"}, by_bytes, generation)]
    for block_out in (32, 64):
        for is_whole in (0, 1):
            chosen = {**by_words, "BLOCK_OUT": block_out, "IS_WHOLE": is_whole}
            codes.append(
                compiled(nf4_words, {**pointers, "words": "*i32"}, chosen, generation, **options(rows, block_out))
            )
    for code in codes:
        assert code.asm["cubin"]
        assert code.metadata.shared <= 1024 * GENERATIONS[generation]
