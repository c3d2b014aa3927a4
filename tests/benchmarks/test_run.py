"""A whole small run on the fake engine, what its report says, and what it must notice."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from app.processes import Program
from benchmarks import overhead
from benchmarks.serving.check import MODELS, PROMPTS, compare
from benchmarks.serving.engines.peft import BATCH, SERIAL
from benchmarks.serving.measure import Measurement, Spread
from benchmarks.serving.plan import BASE_ONLY, DRAWN, MIXED, ONE, QUICK
from benchmarks.serving.processes import running, suspended
from benchmarks.serving.report import problems, rows_of, summary, table
from benchmarks.serving.run import Bench, Results
from benchmarks.serving.target import HttpTarget, Kit, Target, Variant
from benchmarks.serving.workload import Point, Sizes

pytestmark = pytest.mark.model  # starts real processes


@dataclass(frozen=True)
class Ready:
    """An engine that is started already, or is not there."""

    name: str
    target: HttpTarget | None

    def missing(self) -> str | None:
        return "build it" if self.target is None else None

    def variants(self) -> tuple[Variant, ...]:
        return (Variant("float32"), Variant("bfloat16"))

    @contextmanager
    def serve(self, variant: Variant) -> Iterator[tuple[Target, ...]]:
        assert self.target is not None
        yield (replace(self.target, name=self.name),)


def test_a_small_run_measures_every_point_and_names_who_is_missing(
    target: HttpTarget, model: Path, tmp_path: Path
) -> None:
    sizes = Sizes(requests=6, prompt_tokens=8, new_tokens=4, longest=20)
    plan = replace(QUICK, sizes=sizes, once=(ONE, DRAWN), peer_points=(MIXED, BASE_ONLY, DRAWN), rounds=2)
    kit = Kit(model=model, base_id="fake", adapters={}, folder=tmp_path, threads=1)
    bench = Bench(kit, plan, seed="s", tell=lambda line: None)
    results = bench.run([Ready("selfspec", target), Ready("vLLM", target), Ready("llama.cpp", None)])
    found = summary(results)
    rows = rows_of(results.measurements)
    rounds = {(row.target, row.point): row.rounds for row in rows}
    assert rounds == {
        ("selfspec", "mixed@32"): 2,
        ("selfspec", "base@32"): 2,
        ("selfspec", "one@32"): 1,
        ("selfspec", "mixed-drawn@32"): 1,
        ("vLLM", "mixed@32"): 2,
        ("vLLM", "base@32"): 2,
        ("vLLM", "mixed-drawn@32"): 1,
    }
    assert found["problems"] == []
    assert found["missing"] == {"llama.cpp": "not installed: build it"}
    assert found["mixed_over_llamacpp"] is None
    assert found["mixed_over_vllm"] > 0
    assert found["wrong_in_crowd"] == {"selfspec, float32": 0, "vLLM, float32": 0}
    assert len(list(table(rows))) == 1 + len(rows)
    json.dumps(found, allow_nan=False)


def test_trials_keep_the_fastest_variant_and_the_fastest_in_float32(
    target: HttpTarget, model: Path, tmp_path: Path
) -> None:
    plan = replace(QUICK, sizes=Sizes(requests=2, prompt_tokens=4, new_tokens=2), dtypes=None).only([MIXED.name])
    kit = Kit(model=model, base_id="fake", adapters={}, folder=tmp_path, threads=1)
    results = Bench(kit, plan, seed="s", tell=lambda line: None).run([Ready("vLLM", target)])
    assert "float32" in {found.dtype for found in results.measurements}


def measured(target: str, point: Point, rate: float, *, ttft: float = 1.0, failures: int = 0) -> Measurement:
    spread = Spread(ttft, ttft)
    return Measurement(
        target=target,
        dtype="float32",
        point=point.name,
        tokens_per_second=rate,
        first_token=spread,
        total=spread,
        between_tokens=spread,
        cpu_ms_per_token=1.0,
        prompt_tokens=100.0,
        requests=4,
        failures=failures,
        first_failure="it broke off" if failures else None,
        seconds=1.0,
        client_share=0.0,
        others_share=0.0,
    )


def results_of(measurements: Sequence[Measurement]) -> Results:
    return Results(measurements=list(measurements))


def test_ratios_are_of_medians_and_bars_follow() -> None:
    found = summary(
        results_of(
            [
                *(measured("selfspec", MIXED, rate, ttft=2.0) for rate in (90.0, 100.0, 500.0)),
                measured("selfspec", ONE, 105.0),
                measured("selfspec", BASE_ONLY, 150.0),
                measured("selfspec", DRAWN, 90.0),
                measured(SERIAL, MIXED, 10.0, ttft=9.0),
                measured(BATCH, MIXED, 80.0, ttft=1.0),
                measured(BATCH, DRAWN, 45.0),
            ]
        )
    )
    assert found["mixed_over_peft_serial"] == 10.0
    assert found["mixed_over_peft_batch"] == 1.25
    assert found["mixed_over_peft_batch_drawn"] == 2.0
    assert found["best_rounds"]["mixed_over_peft_batch"] == 6.25
    assert found["one_over_base"] == 0.7
    assert found["ttft_p95_s"] == {"selfspec": 2.0, SERIAL: 9.0, BATCH: 1.0, "llama.cpp": None, "vLLM": None}
    bars = found["bars"]
    assert bars["mixed_over_peft_serial >= 5.0"] is True
    assert bars["mixed_over_peft_batch >= 1.3"] is False
    assert bars["mixed_over_vllm >= 1.5"] is None
    assert bars["ttft_p95 mixed@32 below every peer's"] is False
    assert bars["cold_attach_ms <= 50.0"] is None


def test_a_failed_request_of_the_service_is_a_problem_and_a_peers_is_not() -> None:
    results = results_of([measured("selfspec", MIXED, 9.0, failures=2), measured("vLLM", MIXED, 9.0, failures=1)])
    assert problems(results) == ["mixed@32, float32: 2 of 4 failed: it broke off"]


def test_an_answer_with_anothers_words_is_wrong_and_a_late_difference_is_not() -> None:
    reference = {(model, prompt): f"{model} says something of its own" for model in MODELS for prompt in PROMPTS}
    drifted = {**reference, ("d1", PROMPTS[0]): "d1 says something of another kind"}
    assert (compare(drifted, reference).wrong, compare(drifted, reference).drifted) == (0, 1)
    crossed = {**reference, ("base", PROMPTS[0]): reference["d3", PROMPTS[0]]}
    verdict = compare(crossed, reference)
    assert (verdict.wrong, verdict.drifted) == (1, 0)
    assert verdict.example is not None
    assert "base" in verdict.example
    assert compare({**reference, ("d2", PROMPTS[1]): ""}, reference).wrong == 1


def test_wrong_answers_of_the_service_are_a_problem() -> None:
    results = results_of([])
    reference = {(model, prompt): f"{model} says" for model in MODELS for prompt in PROMPTS}
    crossed = {**reference, ("d0", PROMPTS[0]): "base says"}
    results.in_crowd = {"selfspec, float32": compare(crossed, reference), "vLLM, float32": compare(crossed, reference)}
    (problem,) = problems(results)
    assert problem.startswith("selfspec, float32: 1 wrong")


def wait_until(is_so: Callable[[], bool]) -> None:
    """A signal takes a moment to arrive."""
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline


def test_a_server_is_suspended_and_ends_with_everything_it_started(tmp_path: Path) -> None:
    child = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)"
    code = f"{child}\nprint('up', flush=True)\ninput_never = __import__('signal').pause()"
    program = Program("server", (sys.executable, "-c", code), tmp_path / "log")
    with running(program, environment={}) as process:
        while "up" not in program.log.read_text():
            assert process.is_running()
        members = [process, *process.children(recursive=True)]
        assert len(members) == 2
        with suspended([process]):
            wait_until(lambda: all(member.status() == psutil.STATUS_STOPPED for member in members))
        wait_until(lambda: all(member.status() != psutil.STATUS_STOPPED for member in members))
    assert not any(psutil.pid_exists(member.pid) and member.is_running() for member in members)


def test_overhead_is_measured_on_the_service_as_it_is_started(tmp_path: Path) -> None:
    costs = overhead.measure(tmp_path, requests=5, streams=2)
    found = overhead.summary(costs)
    asked = {f"{kind}{who}" for kind in ("generate", "completions", "chat") for who in ("", ", expert")}
    assert set(costs) == {"health", *asked, "stream, short", "stream, long"}
    assert all(cost.wall_ms > 0 for cost in costs.values())
    assert {"request_cpu_ms", "token_cpu_us", "bars"} <= set(found)


def test_the_command_says_what_it_takes() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert all(option in shown for option in ("--quick", "--engines", "--points", "--dtypes", "--seed"))
