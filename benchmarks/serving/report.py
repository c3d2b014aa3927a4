"""The table, the ratios and the bars. Knows measurements only, and runs nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.serving.engines.peft import BATCH, SERIAL
from benchmarks.serving.measure import Measurement
from benchmarks.serving.plan import BASE_ONLY, DRAWN, MIXED, ONE
from benchmarks.serving.run import OURS, Results
from benchmarks.serving.workload import Point

LLAMACPP, VLLM = "llama.cpp", "vLLM"
PEERS = (SERIAL, BATCH, LLAMACPP, VLLM)


@dataclass(frozen=True, slots=True)
class Row:
    """One point of one target in one variant: the median over rounds, beside the slowest and the fastest rate."""

    target: str
    dtype: str
    point: str
    rate: float  # output tokens/s
    slowest: float
    fastest: float
    ttft_p50: float
    ttft_p95: float
    total_p50: float
    total_p95: float
    gap_p50: float
    gap_p95: float
    cpu_ms: float  # of the server's processes, an output token
    client_share: float
    others_share: float
    failures: int
    rounds: int


def rows_of(measurements: Sequence[Measurement]) -> list[Row]:
    """In the order of the first measurement of each."""
    groups: dict[tuple[str, str, str], list[Measurement]] = {}
    for found in measurements:
        groups.setdefault((found.point, found.target, found.dtype), []).append(found)
    return [_row(group) for group in groups.values()]


def _row(group: Sequence[Measurement]) -> Row:
    def mid(figure: Callable[[Measurement], float]) -> float:
        return median(figure(found) for found in group)

    rates = [found.tokens_per_second for found in group]
    return Row(
        target=group[0].target,
        dtype=group[0].dtype,
        point=group[0].point,
        rate=median(rates),
        slowest=min(rates),
        fastest=max(rates),
        ttft_p50=mid(lambda m: m.first_token.p50),
        ttft_p95=mid(lambda m: m.first_token.p95),
        total_p50=mid(lambda m: m.total.p50),
        total_p95=mid(lambda m: m.total.p95),
        gap_p50=mid(lambda m: m.between_tokens.p50),
        gap_p95=mid(lambda m: m.between_tokens.p95),
        cpu_ms=mid(lambda m: m.cpu_ms_per_token),
        client_share=mid(lambda m: m.client_share),
        others_share=mid(lambda m: m.others_share),
        failures=sum(found.failures for found in group),
        rounds=len(group),
    )


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Lines for a person; seconds but where it says otherwise."""
    yield (
        f"{'point':<15} {'target, dtype':<28} {'tok/s':>7} {'(min–max)':>13} {'TTFT p50/p95':>13} {'total p50/p95':>13}"
        f" {'gap p50/p95 ms':>15} {'CPU ms/tok':>10} {'client':>6} {'others':>6} {'failed':>6}"
    )
    for row in sorted(rows, key=lambda row: row.point):
        spread = f"({row.slowest:.1f}–{row.fastest:.1f})" if row.rounds > 1 else ""
        yield (
            f"{row.point:<15} {f'{row.target}, {row.dtype}':<28} {row.rate:>7.1f} {spread:>13} "
            f"{f'{row.ttft_p50:.2f}/{row.ttft_p95:.2f}':>13} {f'{row.total_p50:.2f}/{row.total_p95:.2f}':>13} "
            f"{f'{1000 * row.gap_p50:.0f}/{1000 * row.gap_p95:.0f}':>15} {row.cpu_ms:>10.1f} "
            f"{row.client_share:>6.1%} {row.others_share:>6.1%} {row.failures:>6}"
        )


class Figures:
    """Ratios between rows: medians of rounds, or, ``best``, each side's fastest round."""

    def __init__(self, rows: Sequence[Row], *, dtype: str | None = None, best: bool = False) -> None:
        """``dtype`` None: each target in its own fastest variant."""
        self._rows = [row for row in rows if dtype is None or row.dtype.split()[0] == dtype]
        self._best = best

    def rate(self, target: str, point: Point) -> float | None:
        """Output tokens/s; None if it was not measured."""
        rates = [row.fastest if self._best else row.rate for row in self._at(target, point)]
        return max(rates, default=None)

    def ttft_p95(self, target: str, point: Point) -> float | None:
        """Of the variant with the highest rate; of a peer, the lowest of any."""
        rows = sorted(self._at(target, point), key=lambda row: -row.rate)
        times = [row.ttft_p95 for row in (rows[:1] if target == OURS else rows) if not math.isnan(row.ttft_p95)]
        return min(times, default=None)

    def ratios(self) -> dict[str, float | None]:
        """By the names of the last line."""
        ours = {point: self.rate(OURS, point) for point in (MIXED, DRAWN, ONE, BASE_ONLY)}
        return {
            "mixed_over_peft_serial": _over(ours[MIXED], self.rate(SERIAL, MIXED)),
            "mixed_over_peft_batch": _over(ours[MIXED], self.rate(BATCH, MIXED)),
            "mixed_over_peft_batch_drawn": _over(ours[DRAWN], self.rate(BATCH, DRAWN)),
            "mixed_over_llamacpp": _over(ours[MIXED], self.rate(LLAMACPP, MIXED)),
            "mixed_over_vllm": _over(ours[MIXED], self.rate(VLLM, MIXED)),
            "base_over_vllm": _over(ours[BASE_ONLY], self.rate(VLLM, BASE_ONLY)),
            "mixed_over_one": _over(ours[MIXED], ours[ONE]),
            "one_over_base": _over(ours[ONE], ours[BASE_ONLY]),
        }

    def first_tokens(self, point: Point) -> dict[str, float | None]:
        """TTFT p95 by target, seconds."""
        return {target: _rounded(self.ttft_p95(target, point)) for target in (OURS, *PEERS)}

    def _at(self, target: str, point: Point) -> list[Row]:
        return [row for row in self._rows if row.target == target and row.point == point.name and row.rate > 0]


AT_LEAST = {
    "mixed_over_peft_serial": 5.0,
    "mixed_over_peft_batch": 1.3,
    "mixed_over_peft_batch_drawn": 2.0,
    "mixed_over_llamacpp": 3.0,
    "mixed_over_vllm": 1.5,
    "base_over_vllm": 0.8,
    "mixed_over_one": 0.9,
    "one_over_base": 0.8,
}
MOST_ATTACH_MS = 50.0
MOST_STALL_STEPS = 1.0


def bars(figures: Figures, results: Results) -> dict[str, bool | None]:
    """Met or missed; None where what it takes was not measured."""
    ratios = figures.ratios()
    found: dict[str, bool | None] = {
        f"{name} >= {least}": None if (ratio := ratios[name]) is None else ratio >= least
        for name, least in AT_LEAST.items()
    }
    for point in (MIXED, BASE_ONLY):
        found[f"ttft_p95 {point.name} below every peer's"] = _is_lowest(figures.first_tokens(point))
    cold = results.cold
    found[f"cold_attach_ms <= {MOST_ATTACH_MS}"] = None if cold is None else cold.attach_ms <= MOST_ATTACH_MS
    found[f"cold stall <= {MOST_STALL_STEPS} step"] = None if cold is None else cold.stall_steps <= MOST_STALL_STEPS
    return found


def summary(results: Results) -> dict[str, Any]:
    """The last line."""
    rows = rows_of(results.measurements)
    figures = Figures(rows)
    cold = results.cold
    return {
        **{name: _rounded(ratio) for name, ratio in figures.ratios().items()},
        "ttft_p95_s": figures.first_tokens(MIXED),
        "ttft_p95_s_base": figures.first_tokens(BASE_ONLY),
        "cold_attach_ms": None if cold is None else _rounded(cold.attach_ms),
        "cold_stall_steps": None if cold is None else _rounded(cold.stall_steps),
        "cold": None if cold is None else {name: _rounded(value) for name, value in asdict(cold).items()},
        "float32": {name: _rounded(ratio) for name, ratio in Figures(rows, dtype="float32").ratios().items()},
        "best_rounds": {name: _rounded(ratio) for name, ratio in Figures(rows, best=True).ratios().items()},
        "bars": bars(figures, results),
        "wrong_in_crowd": {name: verdict.wrong for name, verdict in results.in_crowd.items()},
        "missing": results.missing,
        "problems": problems(results),
    }


def problems(results: Results) -> list[str]:
    """What is wrong with the service itself: failed requests, and answers that differ in float32.

    In less exact formats a near tie may fall either way, PEFT's own included, and then an answer can happen to go on as
    another model's does: such answers are counted, not judged.
    """
    found = [
        f"{m.point}, {m.dtype}: {m.failures} of {m.requests} failed: {m.first_failure}"
        for m in results.measurements
        if m.target == OURS and m.failures
    ]
    exact = f"{OURS}, float32"
    if (verdict := results.in_crowd.get(exact)) and (verdict.wrong or verdict.drifted):
        found.append(f"{exact}: {verdict.wrong} wrong, {verdict.drifted} drifted in a crowd: {verdict.example}")
    if (verdict := results.beside_peft.get(exact)) and verdict.wrong:
        found.append(f"{exact}: {verdict.wrong} of {verdict.asked} not as PEFT answers: {verdict.example}")
    return [*found, *([results.cold_failure] if results.cold_failure else [])]


def _over(value: float | None, other: float | None) -> float | None:
    return value / other if value is not None and other else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _is_lowest(times: dict[str, float | None]) -> bool | None:
    ours = times[OURS]
    peers = [time for target, time in times.items() if target != OURS and time is not None]
    return None if ours is None or not peers else ours < min(peers)
