"""``python -m benchmarks.overhead``: what the API itself costs, with the fake engine, whose answers take microseconds.

One request at a time over one kept connection. Processor time is the service's own (all its processes); wall time is
the caller's and so has this client in it: ``/health`` is the floor of both. The cost of a streamed token is what a long
stream costs more than a short one. The fake engine tells a whole answer at once, so sixty-four tokens do not wake the
service sixty-four times as a real engine's do. The last line is JSON.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from app.processes import ended_by_signals
from app.settings import Settings
from benchmarks.serving.engines.selfspec import Selfspec
from benchmarks.serving.processes import cpu_seconds
from benchmarks.serving.target import HttpTarget, Kit, Variant

BASE = "fake-base"
LONG, SHORT = 1024, 64  # tokens of a stream
MOST_REQUEST_MS, MOST_TOKEN_US = 1.0, 50.0


@dataclass(frozen=True, slots=True)
class Call:
    """One kind of request."""

    name: str
    path: str
    body: dict[str, Any] | None = None  # None: GET


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one request, milliseconds: the service's processor time, and the caller's wall time (median)."""

    cpu_ms: float
    wall_ms: float


def _completion(name: str, num_tokens: int, *, stream: bool) -> Call:
    body = {"model": BASE, "prompt": "What is a bond?", "max_tokens": num_tokens, "temperature": 0, "raw": True}
    return Call(name, "/v1/completions", {**body, "ignore_eos": True, "stream": stream})


FLOOR = Call("health", "/health")
REQUESTS = (
    Call("generate", "/generate", {"instruction": "What is a bond?", "max_new_tokens": 8}),
    _completion("completions", 8, stream=False),
    Call("chat", "/v1/chat/completions", {"model": BASE, "messages": [{"role": "user", "content": "What is a bond?"}]}),
)
STREAMS = _completion("stream, short", SHORT, stream=True), _completion("stream, long", LONG, stream=True)


class Caller:
    """One kept connection to one service."""

    def __init__(self, target: HttpTarget) -> None:
        self._target = target
        self._connection = http.client.HTTPConnection(target.address.host, target.address.port, timeout=30)

    def close(self) -> None:
        self._connection.close()

    def cost(self, call: Call, *, times: int) -> Cost:
        """After as many calls again as a tenth, to warm up. Raises ValueError if one is not answered with 200."""
        for _ in range(max(1, times // 10)):
            self._seconds(call)
        before = cpu_seconds(self._target.process)
        walls = [self._seconds(call) for _ in range(times)]
        spent = cpu_seconds(self._target.process) - before
        return Cost(cpu_ms=1000 * spent / times, wall_ms=1000 * median(walls))

    def _seconds(self, call: Call) -> float:
        content = None if call.body is None else json.dumps(call.body)
        started = time.perf_counter()
        method = "GET" if content is None else "POST"
        self._connection.request(method, call.path, body=content, headers={"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise ValueError(f"{call.path} answered {answer.status}: {said.decode(errors='replace')[:300]}")
        return time.perf_counter() - started


def measure(folder: Path, *, requests: int, streams: int) -> dict[str, Cost]:
    """Costs by name of call; ``folder`` takes the service's data and logs."""
    kit = Kit(model=folder / BASE, base_id=BASE, adapters={}, folder=folder, threads=1)
    with Selfspec(kit, kind="fake").start(Variant("float32")) as target, closing(Caller(target)) as caller:
        costs = {call.name: caller.cost(call, times=requests) for call in (FLOOR, *REQUESTS)}
        return costs | {call.name: caller.cost(call, times=streams) for call in STREAMS}


def summary(costs: dict[str, Cost]) -> dict[str, Any]:
    """The last line: of the dearest kind of request, and of a token."""
    short, long = (costs[call.name] for call in STREAMS)
    dearest = max((costs[call.name] for call in REQUESTS), key=lambda cost: cost.cpu_ms)
    floor = costs[FLOOR.name]
    found = {
        "request_cpu_ms": dearest.cpu_ms,
        "request_wall_ms": dearest.wall_ms,
        "over_health_cpu_ms": dearest.cpu_ms - floor.cpu_ms,
        "over_health_wall_ms": dearest.wall_ms - floor.wall_ms,
        "token_cpu_us": 1000 * (long.cpu_ms - short.cpu_ms) / (LONG - SHORT),
        "token_wall_us": 1000 * (long.wall_ms - short.wall_ms) / (LONG - SHORT),
    }
    bars = {
        f"over_health_cpu_ms <= {MOST_REQUEST_MS}": found["over_health_cpu_ms"] <= MOST_REQUEST_MS,
        f"over_health_wall_ms <= {MOST_REQUEST_MS}": found["over_health_wall_ms"] <= MOST_REQUEST_MS,
        f"token_cpu_us <= {MOST_TOKEN_US}": found["token_cpu_us"] <= MOST_TOKEN_US,
        f"token_wall_us <= {MOST_TOKEN_US}": found["token_wall_us"] <= MOST_TOKEN_US,
    }
    return {"bench": "overhead", **{name: round(value, 3) for name, value in found.items()}, "bars": bars}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; a bar that is missed is a finding, not a failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead")
    parser.add_argument("--requests", type=int, default=1000, help="of each kind")
    parser.add_argument("--streams", type=int, default=100, help="short ones, and as many long ones")
    options = parser.parse_args(arguments)
    folder = Settings().data_dir.absolute() / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    with ended_by_signals():
        costs = measure(folder, requests=options.requests, streams=options.streams)
    for name, cost in costs.items():
        print(f"{name:<14} {cost.cpu_ms:8.3f} ms processor, {cost.wall_ms:8.3f} ms wall")
    found = summary(costs)
    for bar, met in found["bars"].items():
        print(f"{'met' if met else 'MISSED':>6}  {bar}")
    print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
