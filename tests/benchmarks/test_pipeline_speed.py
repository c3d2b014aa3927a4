"""The pipeline benchmark: both ways of generating do the same work, and bars follow from what the parts tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.core.presets import make_recipe
from app.core.records import GenerationRequest
from app.engine.base import BaseOptions
from app.engine.engine import EngineSizes, TorchEngine
from app.engine.fake import FakeEngine
from app.pipeline.holdout import Split
from benchmarks.pipeline.__main__ import run_part
from benchmarks.pipeline.generation import INSTRUCTIONS, RESPONSES, Found, summary
from benchmarks.pipeline.plain import PlainLoop
from benchmarks.pipeline.report import bars
from benchmarks.pipeline.stages import FolderBench
from tests.engine.tiny import make_base, make_tokenizer, write_base
from tests.pipeline.samples import seeds


@pytest.fixture(scope="module")
def plain() -> PlainLoop:
    return PlainLoop(make_base())


def test_the_plain_loop_answers_as_the_engine_does(plain: PlainLoop, tmp_path: Path) -> None:
    folder = write_base(tmp_path)
    make_tokenizer(template="<s> $A").save_pretrained(folder)
    engine = TorchEngine(
        BaseOptions("tiny", "tiny", dtype="float32"), lambda: folder, EngineSizes(num_slots=1, max_rank=8, max_batch=4)
    )
    requests = [GenerationRequest(text, max_new_tokens=12) for text in ("the revenue", "question", "a board fell and")]
    try:
        ours, theirs = engine.generate(requests), plain.generate(requests)
    finally:
        engine.close()
    assert [answer.text for answer in ours] == [answer.text for answer in theirs]
    assert [answer.finish_reason for answer in ours] == [answer.finish_reason for answer in theirs]


def test_the_plain_loop_stops_at_a_stop_text(plain: PlainLoop) -> None:
    [whole] = plain.generate([GenerationRequest("the revenue", max_new_tokens=12)])
    stop = whole.text[4:6]
    [cut] = plain.generate([GenerationRequest("the revenue", max_new_tokens=12, stop=(stop,))])
    assert (cut.text, cut.finish_reason) == (whole.text.partition(stop)[0], "stop")
    assert cut.completion_tokens < whole.completion_tokens


def test_the_stages_run_in_a_folder(tmp_path: Path) -> None:
    recipe = make_recipe({"preset": "quick", "num_examples": 10_000, "max_prompts": 8, "min_yield": 0.0})
    split = Split(tuple(seeds(4, "tone", "sense")), (), is_holdout=False)
    bench = FolderBench(tmp_path, recipe, "finance", split, FakeEngine(), INSTRUCTIONS)
    candidates, rows = bench.run(INSTRUCTIONS), bench.run(RESPONSES)
    assert 0 < len(candidates) <= 8
    assert {(row["reply"], row["item"]) for row in rows} <= {(row["reply"], row["item"]) for row in candidates}
    assert rows


def found(kind: str, accepted: int, seconds: float) -> Found:
    """``seconds`` of two threads that never wait, by the clock."""
    return Found(kind, "tiny", 8, 8, accepted, seconds / 2, seconds / 2, seconds, seconds, 1_000_000)


def test_the_ratio_is_of_accepted_examples_a_minute() -> None:
    told = summary([found("ours", 60, 30.0), found("plain", 20, 120.0)])
    assert (told["ours_per_minute"], told["plain_per_minute"], told["ratio"]) == (120.0, 10.0, 12.0)
    assert (told["ours_per_cpu_minute"], told["plain_per_cpu_minute"], told["cpu_ratio"]) == (60.0, 5.0, 12.0)
    for alone in ([found("ours", 60, 30.0)], [found("ours", 60, 30.0), found("plain", 0, 120.0)]):
        assert (summary(alone)["ratio"], summary(alone)["cpu_ratio"]) == (None, None)


def test_bars_are_met_missed_or_not_measured() -> None:
    told: dict[str, dict[str, Any]] = {
        "generation": {"ratio": 12.0},
        "novelty": {"sizes": [{"pool": 5000, "ms": 5.1}, {"pool": 9, "ms": 1.0}]},
    }
    assert list(bars(told).values()) == [True, None, False]
    assert list(bars({"training": {"ratio": 1.4}}).values()) == [None, False, None]


def test_a_part_that_breaks_is_told_with_its_exit_code() -> None:
    with pytest.raises(ValueError, match="exit code 1"):
        run_part("no-such-part")
