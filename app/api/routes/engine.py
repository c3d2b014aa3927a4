"""GET /engine and GET /metrics: what the engine holds and does, for people and for Prometheus."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder

from app.api import examples
from app.api.schemas.engine import (
    BaseBody,
    BatchBody,
    EngineBody,
    ExpertLoadBody,
    MemoriesBody,
    MemoryBody,
    SlotsBody,
    WarmUpBody,
)
from app.api.schemas.errors import refusals
from app.core.errors import NotReady
from app.services.engine_view import EngineView, EngineViewer
from app.services.metrics import Metrics

router = APIRouter(tags=["engine"])

BASE: dict[str, Any] = {
    "name": "smollm2-135m-instruct",
    "fingerprint": "c41d8f20b7e93a56",
    "quantization": "none",
    "dtype": "bfloat16",
    "device": "cpu",
    "context_tokens": 8192,
    "num_parameters": 134515008,
}
ENGINE: dict[str, Any] = {
    "base": BASE,
    "slots": {"total": 8, "used": 1, "bytes_each": 19537920},
    "batch": {"max": 32, "running": 3, "waiting": 1},
    "memory": {
        "slots": {"used": 19537920, "budget": 156303360},
        "host": {"used": 9768960, "budget": 1073741824},
        "cache": {"used": 6912000, "budget": 536870912},
        "prefix": {"used": 1382400, "budget": 134217728},
    },
    "experts": [
        {
            "name": "finance@v1",
            "adapter": examples.ADAPTER_ID,
            "slot": 1,
            "num_bytes": 9768960,
            "is_pinned": False,
            "running": 2,
            "waiting": 1,
        },
        {
            "name": "base",
            "adapter": None,
            "slot": 0,
            "num_bytes": 0,
            "is_pinned": True,
            "running": 1,
            "waiting": 0,
        },
    ],
    "counters": {"requests": 1204, "prompt_tokens": 118020, "generated_tokens": 77056, "evictions": 0},
    "warm_up": {
        "load_seconds": 1.9,
        "first_token_seconds": 0.21,
        "seconds": 2.3,
        "attached": ["finance@v1"],
        "not_attached": [{"name": "law@v2", "reason": "the files of law@v2 are not in the artifact store"}],
        "failure": None,
    },
}
METRICS = """\
# HELP selfspec_answers_total generations ended, by finish reason or error
# TYPE selfspec_answers_total counter
selfspec_answers_total{domain="finance",outcome="stop",version="1"} 1204.0
# HELP selfspec_slots_used slots that hold an adapter
# TYPE selfspec_slots_used gauge
selfspec_slots_used 1.0
"""


@router.get(
    "/engine",
    summary="Look into the engine",
    description="What is loaded, how full it is, and who runs and waits, by expert; as it is at this moment.",
    responses={
        200: examples.response("One look.", ENGINE),
        **refusals(loading=NotReady("the base is still loading")),
    },
)
def look(request: Request) -> EngineBody:
    viewer = request.app.state.engine_viewer
    assert isinstance(viewer, EngineViewer)
    return _body(viewer.look())


@router.get(
    "/metrics",
    summary="Read the metrics",
    description="For Prometheus, in its text format or in OpenMetrics' by `Accept`; docs/observability.md lists them.",
    response_class=Response,
    responses={
        200: examples.response("The figures of this process.", METRICS, kind="text/plain"),
        **refusals(),
    },
)
def metrics(request: Request) -> Response:
    kept = request.app.state.metrics
    assert isinstance(kept, Metrics)
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(kept.registry), media_type=content_type)


def _body(view: EngineView) -> EngineBody:
    state = view.state
    return EngineBody(
        base=BaseBody.model_validate(view.base),
        slots=SlotsBody(total=state.num_slots, used=view.slots_used, bytes_each=state.slot_bytes),
        batch=BatchBody(max=state.max_batch, running=state.running, waiting=state.waiting),
        memory=MemoriesBody(
            slots=MemoryBody(used=state.slot_bytes * view.slots_used, budget=state.slot_bytes * state.num_slots),
            host=MemoryBody(used=state.host_bytes, budget=state.host_budget),
            cache=MemoryBody(used=state.cache_bytes, budget=state.cache_budget),
            prefix=MemoryBody(used=state.prefix_bytes, budget=state.prefix_budget),
        ),
        experts=[
            ExpertLoadBody(
                name=expert.name,
                adapter=expert.load.adapter,
                slot=expert.load.slot,
                num_bytes=expert.load.num_bytes,
                is_pinned=expert.load.is_pinned,
                running=expert.load.running,
                waiting=expert.load.waiting,
            )
            for expert in view.experts
        ],
        counters=dict(view.counters),
        warm_up=None if view.warm_up is None else WarmUpBody.model_validate(view.warm_up),
    )
