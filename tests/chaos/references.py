"""What each kind of order makes when nothing disturbs it: run once in this process, by the same code and engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.presets import make_recipe
from app.core.states import JobStatus
from app.pipeline.stages import walk
from app.services.lease import Held
from tests.chaos.plan import EVALUATION, Order
from tests.services.house import SEEDS, House

COMPARING = ("metrics", "gate")  # kinds of stages that look at the champion, which is another at every moment


@dataclass(frozen=True, slots=True)
class Reference:
    """Digests by stage (None: it was skipped), and the rows of each dataset. Stages that compare are left out."""

    digests: dict[str, str | None]
    rows: dict[str, list[dict[str, Any]]]


def make_references(orders: Iterable[Order], folder: Path) -> dict[str, Reference]:
    """By variant. ``folder`` becomes a service of its own."""
    folder.mkdir(parents=True)
    house = House(folder)
    with house.database:
        return {variant: _run(house, order) for variant, order in {order.variant: order for order in orders}.items()}


def _run(house: House, order: Order) -> Reference:
    job_id = house.order(seeds=SEEDS, evaluation=EVALUATION, domain=order.domain, **order.recipe)
    while not house.job(job_id).status.is_final:
        try:
            house.run(job_id)
        except Held:
            house.services.mover.resume(job_id)
    assert house.job(job_id).status is JobStatus.SUCCEEDED, house.job(job_id).error_message
    kinds = {stage.name: stage.kind for stage in walk(make_recipe(order.recipe))}
    digests = {stage: digest for stage, digest in house.digests(job_id).items() if kinds[stage] not in COMPARING}
    rows = {
        stage: list(house.artifacts.open(digest, kind="dataset").rows())
        for stage, digest in digests.items()
        if digest and kinds[stage] == "dataset"
    }
    return Reference(digests, rows)
