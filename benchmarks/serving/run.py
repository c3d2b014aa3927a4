"""The walk of a benchmark: start every engine, check its answers, measure round by round, measure cold experts.

All engines stay started: a round asks each of them the same point, one after the other, while the others are suspended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import httpx

from benchmarks.serving.check import Verdict, ask_alone, ask_in_crowd, compare
from benchmarks.serving.cold import Cold, measure_cold
from benchmarks.serving.engines.peft import BATCH, SERIAL
from benchmarks.serving.engines.selfspec import Selfspec
from benchmarks.serving.measure import Measurement, Processors, summarize
from benchmarks.serving.plan import MIXED, Plan
from benchmarks.serving.processes import ServerFailed, cpu_seconds, machine_seconds, suspended
from benchmarks.serving.target import Engine, Kit, Target, Variant
from benchmarks.serving.workload import Point, Words, make_workload

OURS = "selfspec"
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Started:
    """A target and the variant it runs in."""

    target: Target
    variant: Variant

    @property
    def name(self) -> str:
        return f"{self.target.name}, {self.variant.name}"


@dataclass(slots=True)
class Results:
    """What was found; ``missing``: engines that could not take part, and why."""

    measurements: list[Measurement] = field(default_factory=list)
    in_crowd: dict[str, Verdict] = field(default_factory=dict)  # by Started.name; against itself, asked alone
    beside_peft: dict[str, Verdict] = field(default_factory=dict)  # against PEFT in float32, asked alone
    missing: dict[str, str] = field(default_factory=dict)
    cold: Cold | None = None
    cold_failure: str | None = None


class Bench:
    """One run. ``tell`` gets a line for everything that happens."""

    def __init__(self, kit: Kit, plan: Plan, *, seed: str, tell: Tell) -> None:
        self._kit, self._plan, self._seed, self._tell = kit, plan, seed, tell
        self._words = Words(kit.model)
        self.results = Results()

    def run(self, engines: Sequence[Engine]) -> Results:
        """Raises ServerFailed or httpx.HTTPError if the service itself does not work; a peer is left out instead."""
        with ExitStack() as stack:
            started = [one for engine in engines for one in self._start_engine(engine, stack)]
            self._check(started)
            for turn, point in self._plan.rounds_of_points():
                for one in started if turn % 2 == 0 else reversed(started):
                    if one.target.can(point) and self._plan.is_asked(point, peer=one.target.name != OURS):
                        others = {other.target.process for other in started} - {one.target.process}
                        with suspended(others):
                            self.results.measurements.append(self._measure(one, point, seed=f"{self._seed} {turn}"))
        if ours := [engine for engine in engines if isinstance(engine, Selfspec)]:
            self._measure_cold(ours[0])
        return self.results

    def _start_engine(self, engine: Engine, stack: ExitStack) -> list[Started]:
        if (how := engine.missing()) is not None:
            self.results.missing[engine.name] = f"not installed: {how}"
            self._tell(f"{engine.name} is {self.results.missing[engine.name]}")
            return []
        return [one for variant in self._choose(engine) for one in self._start(engine, variant, stack)]

    def _choose(self, engine: Engine) -> list[Variant]:
        """The fastest variant with four experts mixed, and the fastest in float32."""
        tried = [variant for variant in engine.variants() if self._plan.is_tried(variant)]
        if self._plan.dtypes is not None:
            return tried
        rates: dict[str, float] = {}
        for variant in tried:
            with ExitStack() as stack:
                for one in self._start(engine, variant, stack):
                    if one.target.name != SERIAL:
                        ask_in_crowd(one.target, words=self._words, seed=self._seed)  # to warm it up
                        found = self._measure(one, MIXED, seed=f"{self._seed} trial")
                        rates[variant.name] = found.tokens_per_second
        ranked = sorted((v for v in tried if v.name in rates), key=lambda v: -rates[v.name])
        exact = [variant for variant in ranked if variant.dtype == "float32"]
        return list({variant.name: variant for variant in (*ranked[:1], *exact[:1])}.values())

    def _start(self, engine: Engine, variant: Variant, stack: ExitStack) -> list[Started]:
        began = time.monotonic()
        try:
            targets = stack.enter_context(engine.serve(variant))
        except (ServerFailed, httpx.HTTPError) as error:
            if engine.name == OURS:
                raise
            name = f"{engine.name}, {variant.name}"
            self.results.missing[name] = f"did not start: {error}"
            self._tell(f"{name} {self.results.missing[name]}")
            return []
        self._tell(f"started {engine.name}, {variant.name} in {time.monotonic() - began:.1f} s")
        return [Started(target, variant) for target in targets]

    def _check(self, started: Sequence[Started]) -> None:
        """Every process asked alone, then in a crowd if it can answer one; that warms it up, too."""
        alone = {one.name: ask_alone(one.target) for one in started if one.target.name != BATCH}
        alone |= {name.replace(SERIAL, BATCH): answers for name, answers in alone.items() if name.startswith(SERIAL)}
        reference = alone.get(f"{SERIAL}, float32")
        for one in started:
            if one.target.name == SERIAL:
                continue
            answers = ask_in_crowd(one.target, words=self._words, seed=self._seed)
            self.results.in_crowd[one.name] = compare(answers, alone[one.name])
            if reference is not None:
                self.results.beside_peft[one.name] = compare(alone[one.name], reference)
            self._tell(f"checked {one.name}: in a crowd {self.results.in_crowd[one.name]}")

    def _measure(self, one: Started, point: Point, *, seed: str) -> Measurement:
        sizes = self._plan.sizes_at(point, serial=one.target.name == SERIAL)
        workload = make_workload(point, words=self._words, sizes=sizes, seed=seed)
        one.target.prepare(point)
        server, client, machine = cpu_seconds(one.target.process), time.process_time(), machine_seconds()
        samples = one.target.ask(workload.requests, concurrency=point.concurrency)
        processors = Processors(
            cpu_seconds(one.target.process) - server, time.process_time() - client, machine_seconds() - machine
        )
        found = summarize(workload, samples, target=one.target.name, dtype=one.variant.name, processors=processors)
        self._tell(f"{point.name}: {one.name}: {found.tokens_per_second:.1f} tokens/s, {found.failures} failed")
        return found

    def _measure_cold(self, ours: Selfspec) -> None:
        """In the variant that was fastest. What was measured before is worth keeping, whatever happens here."""
        rates = {found.dtype: found.tokens_per_second for found in self.results.measurements if found.target == OURS}
        variant = max(ours.variants(), key=lambda variant: rates.get(variant.name, 0.0))
        try:
            self.results.cold = measure_cold(ours, variant, words=self._words, seed=self._seed)
            self._tell(f"cold experts: {self.results.cold}")
        except (ServerFailed, httpx.HTTPError, ValueError) as error:
            self.results.cold_failure = f"cold experts: {error}"
            self._tell(self.results.cold_failure)
