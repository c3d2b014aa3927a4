"""The benchmark of kernels: its arithmetic, and that it runs, on a tiny model on a processor."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import kernels
from benchmarks.kernels import Point, Variant, make_model, measure, weight_bytes

TINY = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "vocab_size": 96}
LAYER_WEIGHTS = 4 * 64 * 64 + 3 * 64 * 128
HEAD, NORMS = 96 * 64, 64  # weights; norms: of one


def test_the_share_is_what_the_limit_takes_of_the_step() -> None:
    point = Point("x", rows=8, seconds=0.02, num_bytes=500, full_bytes=4000, bandwidth=100_000.0)
    assert point.share == pytest.approx(0.25)
    assert point.limit == pytest.approx(200.0)
    assert point.row()["tokens_per_s"] == pytest.approx(50.0)


def test_with_all_layers_tokens_a_second_are_rows_by_seconds() -> None:
    point = Point("x", rows=8, seconds=0.02, num_bytes=500, full_bytes=500, bandwidth=1e6)
    assert point.row()["tokens_per_s"] == pytest.approx(8 / 0.02)


@pytest.mark.parametrize(("quantization", "bytes_a_weight"), [("none", 2.0), ("nf4", 0.5 + 1 / 64)])
def test_all_weights_but_the_embeddings_are_read(quantization: str, bytes_a_weight: float) -> None:
    found = weight_bytes(make_model(TINY, 2, quantization=quantization, device="cpu"))
    others = 2 * (HEAD + 5 * NORMS)
    outer_scales = 7 * 2 * 4 if quantization == "nf4" else 0  # 4 bytes a layer: all are smaller than 256 blocks
    assert found == 2 * LAYER_WEIGHTS * bytes_a_weight + others + outer_scales


@pytest.mark.parametrize("variant", [Variant("plain", "none"), Variant("slots", "nf4", False, num_adapters=2)])
def test_every_batch_is_a_point_and_more_rows_read_more(variant: Variant) -> None:
    points = list(
        measure(variant, shape=TINY, num_layers=2, batches=[1, 4], past=8, repeats=1, bandwidth=1e9, device="cpu")
    )
    assert [point.rows for point in points] == [1, 4]
    assert points[0].num_bytes < points[1].num_bytes
    deep, full = points[1].num_bytes - points[0].num_bytes, points[1].full_bytes - points[0].full_bytes
    assert full == pytest.approx(16 * deep, rel=0.01), "2 layers of 32"
    assert all(point.seconds > 0 for point in points)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so_and_measures_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert kernels.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "no CUDA device" in lines[0]
    assert json.loads(lines[-1]) == {"bench": "kernels", "skipped": "no CUDA device"}
