"""Layers as one matrix, by plain torch and bitsandbytes on a processor; and who wins a contest of products."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit
from torch import Tensor, nn

from app.engine.joined import Nf4Matrix, is_nf4, join
from app.engine.kernels import can_run_kernels
from app.engine.kernels.contest import ROWS, contest, rounded_up


def four_bits(outs: int, in_features: int, *, compress: bool = True) -> Any:
    layer: Any = Linear4bit(  # type: ignore[no-untyped-call]
        in_features, outs, bias=False, compute_dtype=torch.float32, quant_type="nf4", compress_statistics=compress
    )
    layer.load_state_dict(nn.Linear(in_features, outs, bias=False).state_dict())
    layer = layer.to("cpu").requires_grad_(False).eval()
    layer.support_avx512bf16_for_cpu = False
    return layer


def test_plain_layers_are_one_product_and_keep_their_weights() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(32, outs, bias=outs != 8) for outs in (24, 8, 16)]
    x, before = torch.randn(3, 2, 32), [layer.weight.detach().clone() for layer in layers]
    wanted = torch.cat([layer(x) for layer in layers], dim=-1)
    product = join(layers)
    assert product is not None
    torch.testing.assert_close(product(x), wanted)
    assert all(torch.equal(layer.weight, weight) for layer, weight in zip(layers, before, strict=True))
    assert len({layer.weight.untyped_storage().data_ptr() for layer in layers}) == 1, "no copy beside them"


def test_one_plain_layer_or_different_kinds_are_left_alone() -> None:
    assert join([nn.Linear(8, 8)]) is None
    assert join([nn.Linear(64, 8), four_bits(8, 64)]) is None
    assert not is_nf4(four_bits(64, 32)), "rows that are no whole blocks"


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("rows", [1, 70])
def test_layers_of_four_bits_are_one_product_and_keep_their_weights(compress: bool, rows: int) -> None:
    torch.manual_seed(1)
    layers = [four_bits(outs, 128, compress=compress) for outs in (96, 32)]
    x, before = torch.randn(rows, 128), [layer.weight.detach().clone() for layer in layers]
    wanted = [layer(x) for layer in layers]
    matrix = Nf4Matrix(layers, bias=None)
    torch.testing.assert_close(matrix.multiply({}, x), torch.cat(wanted, dim=1), rtol=0, atol=1e-4)
    assert all(torch.equal(layer.weight, weight) for layer, weight in zip(layers, before, strict=True))
    assert len({layer.weight.untyped_storage().data_ptr() for layer in layers}) == 1, "no copy beside them"
    assert all(torch.equal(layer(x), alone) for layer, alone in zip(layers, wanted, strict=True)), "for training"


class Products:
    """Products of one matrix; ours take given shares of bitsandbytes' time."""

    outs, in_features, dtype, packed = 4, 8, torch.float32, torch.zeros(1)

    def __init__(self, shares: dict[str, dict[int, float]], *, errors: dict[str, float] | None = None) -> None:
        self._shares, self._errors = shares, errors or {}
        self._weight = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
        self._last = 1.0

    @property
    def ways(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {name: partial(self._ours, name) for name in self._shares}

    def _ours(self, name: str, x: Tensor) -> Tensor:
        self._last = self._shares[name].get(len(x), 1.0)
        if (error := self._errors.get(name)) == float("inf"):
            raise RuntimeError("out of shared memory")
        return x @ self._weight + (error or 0.0)

    def stock(self, x: Tensor) -> Tensor:
        self._last = 1.0
        return x @ self._weight

    def time_of(self, call: object) -> float:
        assert callable(call)
        call()
        return self._last


def test_the_fastest_is_used_where_it_clearly_wins() -> None:
    products = Products({"bytes": {4: 0.5, 16: 0.96, 64: 0.9}, "words": {4: 0.6, 8: 0.2, 64: 0.8}})
    assert contest(products, products.time_of) == {4: "bytes", 8: "words", 64: "words"}


@pytest.mark.parametrize("error", [10.0, float("nan"), float("inf")])
def test_one_that_errs_or_fails_is_not_used_at_all(error: float, caplog: pytest.LogCaptureFixture) -> None:
    products = Products({"bytes": {4: 0.9}, "words": {4: 0.5}}, errors={"words": error})
    assert contest(products, products.time_of) == {4: "bytes"}
    assert "(words) is not used" in caplog.text


def test_rows_are_rounded_up() -> None:
    assert [rounded_up(rows) for rows in (1, 2, 4, 5, 33, 64, 65)] == [1, 4, 4, 8, 64, 64, 0]
    assert 0 not in ROWS


def test_a_processor_has_no_kernels() -> None:
    assert not can_run_kernels(torch.device("cpu"), torch.float32)
