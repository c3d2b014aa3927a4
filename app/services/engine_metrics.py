"""What the engine counts and holds, read anew whenever Prometheus asks. Adds no cost to anything else."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from app.core.errors import NotReady
from app.core.ports import Engine
from app.core.records import COUNTERS, BaseInfo, EngineState
from app.core.request_notes import BASE, ExpertName
from app.services.expert_names import ExpertNames
from app.services.metrics import Metrics

_TIERS = {  # counters told as one metric with the tier they lead to, or are dropped from
    "attachments": ("adapter_loads", "host"),
    "placements": ("adapter_loads", "device"),
    "evictions": ("adapter_evictions", "device"),
    "host_evictions": ("adapter_evictions", "host"),
}
_GAUGES = ("waiting",)  # of COUNTERS; ``state`` tells them
_EXPERT = ("domain", "version")


class EngineCollector(Collector):
    """Reads ``Engine.stats`` always, ``Engine.state`` once the base is loaded."""

    def __init__(self, engine: Engine, *, metrics: Metrics, names: ExpertNames) -> None:
        self._engine, self._metrics, self._names = engine, metrics, names

    def collect(self) -> Iterator[Metric]:
        """Every family, from one look at the engine."""
        yield from _counters(dict(self._engine.stats()))
        base = self._engine.base
        yield gauge("ready", "1 once the base is loaded", float(base is not None))
        if base is None:
            return
        yield _base(base)
        try:
            state = self._engine.state()
        except NotReady:  # it was closed meanwhile
            return
        yield from _totals(state)
        yield from self._by_expert(state)

    def _by_expert(self, state: EngineState) -> Iterator[Metric]:
        running, waiting = (
            GaugeMetricFamily(f"selfspec_{name}", about, labels=_EXPERT)
            for name, about in (("running", "answers being written"), ("waiting", "requests that wait for a place"))
        )
        held = GaugeMetricFamily("selfspec_adapter_bytes", "adapters in memory", labels=(*_EXPERT, "tier"))
        asked: dict[ExpertName, tuple[int, int]] = {BASE: (0, 0)}
        resident: dict[tuple[str, str, str], int] = {}
        for load in state.experts:
            name = self._metrics.label(self._names.of(load.adapter))
            before = asked.get(name, (0, 0))
            asked[name] = (before[0] + load.running, before[1] + load.waiting)
            if load.adapter is not None:
                key = (*name, "host" if load.slot is None else "device")
                resident[key] = resident.get(key, 0) + load.num_bytes
        for name, (num_running, num_waiting) in asked.items():
            running.add_metric(name, num_running)
            waiting.add_metric(name, num_waiting)
        for key, num_bytes in resident.items():
            held.add_metric(key, num_bytes)
        yield from (running, waiting, held)


def gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    """One figure without labels."""
    return GaugeMetricFamily(f"selfspec_{name}", about, value=value)


def _counters(stats: dict[str, int | float]) -> Iterator[Metric]:
    tiered = {
        name: CounterMetricFamily(f"selfspec_{name}", about, labels=("tier",))
        for name, about in (
            ("adapter_loads", "adapters read from disk (host) or written into a slot (device)"),
            ("adapter_evictions", "adapters that lost their slot (device) or were dropped from memory (host)"),
        )
    }
    for name, about in COUNTERS.items():
        if name in _TIERS:
            family, tier = _TIERS[name]
            tiered[family].add_metric((tier,), stats.get(name, 0))
        elif name not in _GAUGES:
            yield CounterMetricFamily(f"selfspec_engine_{name}", about, value=stats.get(name, 0))
    yield from tiered.values()


def _base(base: BaseInfo) -> Metric:
    labels = {
        "name": base.name,
        "fingerprint": base.fingerprint,
        "quantization": base.quantization,
        "dtype": base.dtype,
        "device": base.device,
    }
    family = GaugeMetricFamily("selfspec_base_info", "the base as loaded; always 1", labels=tuple(labels))
    family.add_metric(tuple(labels.values()), 1)
    return family


def _totals(state: EngineState) -> Iterator[Metric]:
    in_slots = [load for load in state.experts if load.adapter is not None and load.slot is not None]
    in_host = [load for load in state.experts if load.adapter is not None and load.slot is None]
    yield gauge("slots", "adapters that can be computed side by side", state.num_slots)
    yield gauge("slots_used", "slots that hold an adapter", len(in_slots))
    yield gauge("max_batch", "sequences that can be computed together", state.max_batch)
    tiers = GaugeMetricFamily("selfspec_adapters", "adapters in memory, each where it is nearest", labels=("tier",))
    tiers.add_metric(("device",), len(in_slots))
    tiers.add_metric(("host",), len(in_host))
    yield tiers
    used = GaugeMetricFamily("selfspec_memory_bytes", "memory in use", labels=("kind",))
    budget = GaugeMetricFamily("selfspec_memory_budget_bytes", "memory that may be used", labels=("kind",))
    for kind, num_bytes, most in (
        ("slots", state.slot_bytes * len(in_slots), state.slot_bytes * state.num_slots),
        ("host", state.host_bytes, state.host_budget),
        ("cache", state.cache_bytes, state.cache_budget),
        ("prefix", state.prefix_bytes, state.prefix_budget),
    ):
        used.add_metric((kind,), num_bytes)
        budget.add_metric((kind,), most)
    yield from (used, budget)
    yield _batch_sizes(state)
    rows = CounterMetricFamily(
        "selfspec_adapter_rows",
        "sequences of adapters computed, by how many adapters shared the step",
        labels=("slots",),
    )
    for slots, count in sorted(state.rows_by_slots.items()):
        rows.add_metric((str(slots),), count)
    yield rows


def _batch_sizes(state: EngineState) -> Metric:
    """A histogram with a bucket for each power of two up to the largest batch."""
    sizes = state.steps_by_rows
    bounds = [2**power for power in range(state.max_batch.bit_length() + 1)]
    buckets = [(str(bound), sum(count for rows, count in sizes.items() if rows <= bound)) for bound in bounds]
    total = sum(rows * count for rows, count in sizes.items())
    family = HistogramMetricFamily("selfspec_batch_size", "sequences in a step that decodes")
    family.add_metric((), [*buckets, ("+Inf", sum(sizes.values()))], sum_value=total)
    return family
