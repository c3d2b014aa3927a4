"""What jobs leave, put there without their work: artifacts, rows, versions of an expert."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from app.core.states import JobStatus
from app.engine.fake import FakeEngine, write_fake_adapter
from app.pipeline.template import ALPACA
from app.storage.jobs import Failure
from tests.services.house import BASE, SMALL_JOB, House

SMALL: dict[str, Any] = {**SMALL_JOB, "num_examples": 3, "max_prompts": 4, "promotion": "unless_worse"}


def seeds_of(house: House, job_id: str) -> str:
    """Digest of what a job was sent."""
    with house.database.session(read_only=True) as uow:
        return uow.seed_sets.get(uow.jobs.get(job_id).seed_set_id).artifact_digest


def leave(house: House, number: int, *, until: str = "gate", made_from: Sequence[str] = ()) -> str:
    """What a job leaves whose last stage is ``until``, without its work: artifacts, each made from the one before.

    ``made_from``: digests of others that the first was made from.
    """
    job_id = house.order(seed=number, **SMALL)
    house.take(job_id)
    parents = [seeds_of(house, job_id), *made_from]
    for stage in house.stages(job_id):
        draft = house.artifacts.draft(job_id, stage.stage)
        write_fake_adapter(draft, base_name=BASE, weights=f"{stage.stage} {number}".encode().ljust(32))
        artifact = house.artifacts.commit(draft, kind=stage.stage, recipe={}, parents=parents)
        with house.database.session() as uow:
            uow.stage_runs.start(job_id, stage.stage, now=house.now)
            uow.stage_runs.finish(job_id, stage.stage, now=house.now, artifact_digest=artifact.digest)
            uow.artifacts.record(artifact, now=house.now, job_id=job_id, stage=stage.stage)
            uow.commit()
        parents = [artifact.digest]
        if stage.stage == until:
            break
    house.artifacts.discard(job_id)
    return job_id


def version(house: House, number: int, *, is_served: bool = True, made_from: Sequence[str] = ()) -> str:
    """What a job leaves that made the domain's next version."""
    job_id, base = leave(house, number, made_from=made_from), FakeEngine(base_name=BASE)
    artifact = house.artifact(job_id, "adapter")
    with house.database.session() as uow:
        adapter = uow.adapters.add(
            "finance",
            job_id=job_id,
            artifact_digest=artifact.digest,
            base=base.wait_ready(),
            attachment=base.attach("new", artifact.folder),
            alpha=16,
            num_parameters=64,
            template=json.dumps(ALPACA.to_dict()),
            now=house.now,
        )
        if is_served:
            uow.domains.set_champion("finance", adapter.id, now=house.now, reason="gate: a test", job_id=job_id)
        uow.jobs.move(job_id, JobStatus.SUCCEEDED, now=house.now, adapter_id=adapter.id)
        uow.commit()
    return job_id


def failed(house: House, number: int = 9) -> str:
    """What a job leaves that failed after its dataset."""
    job_id = leave(house, number, until="dataset")
    with house.database.session() as uow:
        uow.stage_runs.fail(job_id, now=house.now)
        uow.jobs.move(job_id, JobStatus.FAILED, now=house.now, failure=Failure("died", "it died"))
        uow.commit()
    return job_id


def owe_webhooks(house: House, job_id: str, count: int) -> None:
    """Let a job owe its webhook so many calls; the first is over, the others wait."""
    with house.database.session() as uow:
        uow.jobs.get(job_id).webhook_url = "https://example.com/hook"
        for _ in range(count):
            uow.events.add(job_id, "job_failed", "it died", now=house.now)
        [claimed] = uow.webhooks.claim(now=house.now, until=house.now, limit=1)
        assert uow.webhooks.end(claimed, delivered_at=house.now)
        uow.commit()
