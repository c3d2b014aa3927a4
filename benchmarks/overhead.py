"""``python -m benchmarks.overhead``: what the API itself costs, with the fake engine, whose answers take microseconds.

One request at a time over one kept connection. Processor time is the service's own (all its processes); wall time is
the caller's and so has this client in it: ``/health`` is the floor of both. The cost of a streamed token is what a long
stream costs more than a short one. The fake engine tells a whole answer at once, so sixty-four tokens do not wake the
service sixty-four times as a real engine's do. Every kind of request asks the base and an expert, which a job of the
same service makes first: who serves the domain is looked up at each request. The last line is JSON.
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
from benchmarks.quality.run import ENDED
from benchmarks.serving.engines.selfspec import Selfspec, client
from benchmarks.serving.load import Address
from benchmarks.serving.processes import cpu_seconds
from benchmarks.serving.target import HttpTarget, Kit, Variant

BASE, EXPERT = "fake-base", "finance"
QUESTION = "What is a bond?"
SEEDS = Path(__file__).resolve().parents[1] / "examples" / EXPERT / "seeds.jsonl"
RECIPE = {"preset": "quick", "num_examples": 4, "min_yield": 0, "controls": [], "promotion": "always"}
LOOK_SECONDS = 0.2  # between two looks at the job
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


def _completion(name: str, num_tokens: int, *, stream: bool, model: str = BASE) -> Call:
    body = {"model": model, "prompt": QUESTION, "max_tokens": num_tokens, "temperature": 0, "raw": True}
    return Call(name, "/v1/completions", {**body, "ignore_eos": True, "stream": stream})


def _chat(name: str, model: str) -> Call:
    return Call(name, "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": QUESTION}]})


FLOOR = Call("health", "/health")
REQUESTS = (
    Call("generate", "/generate", {"instruction": QUESTION, "max_new_tokens": 8}),
    Call("generate, expert", f"/generate?domain={EXPERT}", {"instruction": QUESTION, "max_new_tokens": 8}),
    _completion("completions", 8, stream=False),
    _completion("completions, expert", 8, stream=False, model=EXPERT),
    _chat("chat", BASE),
    _chat("chat, expert", EXPERT),
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


def make_expert(address: Address) -> None:
    """A job on the bundled seeds. Raises RuntimeError if it does not succeed."""
    seeds = [json.loads(line) for line in SEEDS.read_text(encoding="utf-8").splitlines()]
    job = client("POST", address, "/specialize", json={"domain": EXPERT, "seeds": seeds, "recipe": RECIPE}).json()
    while job["status"] not in ENDED:
        time.sleep(LOOK_SECONDS)
        job = client("GET", address, f"/jobs/{job['id']}").json()
    if job["status"] != "succeeded":
        raise RuntimeError(f"job {job['id']} {job['status']}: {(job['error'] or {}).get('message')}")


def measure(folder: Path, *, requests: int, streams: int) -> dict[str, Cost]:
    """Costs by name of call; ``folder`` takes the service's data and logs."""
    kit = Kit(model=folder / BASE, base_id=BASE, adapters={}, folder=folder, threads=1)
    with Selfspec(kit, kind="fake").start(Variant("float32")) as target, closing(Caller(target)) as caller:
        make_expert(target.address)
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
        print(f"{name:<20} {cost.cpu_ms:8.3f} ms processor, {cost.wall_ms:8.3f} ms wall")
    found = summary(costs)
    for bar, met in found["bars"].items():
        print(f"{'met' if met else 'MISSED':>6}  {bar}")
    print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
