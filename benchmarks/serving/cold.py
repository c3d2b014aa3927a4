"""What it costs to ask an expert that is neither in a slot nor in memory: its first request, and all the others.

A service of its own whose host memory holds six adapters of sixteen. Ten are asked in turn, so that each has left by
the time it is asked again, and comes from disk (from the system's file cache, that is).
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.serving.engines.selfspec import Selfspec, client
from benchmarks.serving.load import Sample
from benchmarks.serving.measure import failure, gaps
from benchmarks.serving.target import HttpTarget, Variant
from benchmarks.serving.workload import EXPERTS, MIXES, Request, Words

LOADED, HELD = EXPERTS[:16], 6  # adapters the service knows, and how many fit into host memory
COLD = EXPERTS[4:14]  # more than fit into memory, and more than the eight slots
NUM_BESIDE = 5  # of these, asked beside a crowd, too
CROWD = 8  # requests in flight beside
CROWD_TOKENS = 80
PROMPT_TOKENS = 16  # short, so that its own prefill is not taken for a stall


@dataclass(frozen=True, slots=True)
class Cold:
    """Milliseconds; medians over the experts tried, each cold once and warm after that."""

    first_token_cold_ms: float
    first_token_warm_ms: float
    stall_cold_ms: float  # the longest gap between tokens of others while a cold expert's request was answered
    stall_warm_ms: float  # the same while a warm one's was
    step_ms: float  # the others' median gap
    came_from_disk: int  # of those asked on an idle service, as counted by the service
    asked: int

    @property
    def attach_ms(self) -> float:
        """Added to the first request."""
        return self.first_token_cold_ms - self.first_token_warm_ms

    @property
    def stall_steps(self) -> float:
        """Added to the others' longest gap, in their own steps."""
        return (self.stall_cold_ms - self.stall_warm_ms) / self.step_ms


def measure_cold(ours: Selfspec, variant: Variant, *, words: Words, seed: str) -> Cold:
    """Asks on an idle service first, then beside a crowd. Raises ValueError if a request fails."""
    adapters = {name: ours.kit.adapters[name] for name in LOADED}
    held_bytes = HELD * (adapters[LOADED[0]] / "adapter_model.safetensors").stat().st_size
    fewer = replace(ours.kit, adapters=adapters)
    service = replace(ours, kit=fewer, settings={"SELFSPEC_ADAPTER_BYTES": str(held_bytes)})
    chance = random.Random(f"{seed} cold")
    with service.start(variant) as target:
        _ask(target, [_short(name, words, chance) for name in MIXES["mixed"]])  # warm-up
        before = _dropped(target)
        idle = [_idle(target, name, words=words, chance=chance) for name in COLD]
        from_disk = _dropped(target) - before
        beside = [_crowded(target, name, words=words, chance=chance) for name in COLD[:NUM_BESIDE]]
    median = statistics.median
    return Cold(
        first_token_cold_ms=1000 * median(cold for cold, _ in idle),
        first_token_warm_ms=1000 * median(warm for _, warm in idle),
        stall_cold_ms=1000 * median(cold for cold, _, _ in beside),
        stall_warm_ms=1000 * median(warm for _, warm, _ in beside),
        step_ms=1000 * median(step for _, _, step in beside),
        came_from_disk=from_disk,
        asked=len(COLD),
    )


def _idle(target: HttpTarget, name: str, *, words: Words, chance: random.Random) -> tuple[float, float]:
    """Seconds to the first token: cold, and the median of three warm ones."""
    cold, *warm = (s.times[0] - s.started for s in _ask(target, [_short(name, words, chance) for _ in range(4)]))
    return cold, statistics.median(warm)


def _crowded(target: HttpTarget, name: str, *, words: Words, chance: random.Random) -> tuple[float, float, float]:
    """Longest gap (seconds) of the crowd beside a cold request, beside a warm one, and its median gap.

    One place is left beside the crowd; what is asked there one after another is: something to pass the time until the
    whole crowd writes, the cold request, something again, the warm request.
    """
    names = MIXES["mixed"]
    crowd = [
        Request(names[number % len(names)], words.prompt(100, chance=chance), CROWD_TOKENS) for number in range(CROWD)
    ]
    pause, cold, again, warm = (
        Request(names[0], words.prompt(PROMPT_TOKENS, chance=chance), 16),
        _short(name, words, chance),
        Request(names[0], words.prompt(PROMPT_TOKENS, chance=chance), 16),
        _short(name, words, chance),
    )
    samples = _ask(target, [*crowd, pause, cold, again, warm], concurrency=CROWD + 1)
    others = samples[:CROWD]
    step = statistics.median(gap for sample in others for gap in gaps(sample))
    return _longest_gap(others, samples[CROWD + 1]), _longest_gap(others, samples[CROWD + 3]), step


def _longest_gap(samples: Sequence[Sample], beside: Sample) -> float:
    """Of the gaps that overlap with a request. Raises ValueError if there are none."""
    begin, end = beside.started, beside.times[-1]
    found = [
        later - earlier
        for sample in samples
        for earlier, later in zip(sample.times, sample.times[1:], strict=False)
        if later > begin and earlier < end
    ]
    if not found:
        raise ValueError("the crowd had ended before the request began")
    return max(found)


def _short(name: str, words: Words, chance: random.Random) -> Request:
    return Request(name, words.prompt(PROMPT_TOKENS, chance=chance), 2)


def _ask(target: HttpTarget, requests: Sequence[Request], *, concurrency: int = 1) -> list[Sample]:
    samples = target.ask(requests, concurrency=concurrency)
    for request, sample in zip(requests, samples, strict=True):
        if problem := failure(sample, request.max_tokens):
            raise ValueError(f"{request.model}: {problem}")
    return samples


def _dropped(target: HttpTarget) -> int:
    """Adapters dropped from host memory so far: it is full, so each that is read drives one out."""
    return int(client("GET", target.address, "/engine").json()["counters"]["host_evictions"])
