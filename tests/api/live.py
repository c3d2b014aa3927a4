"""A whole service on a port of its own: real HTTP, real SQLite, real files, the fake engine. No worker runs."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty

import httpx
import uvicorn

from app.bootstrap import Resources, build, migrate
from app.core.ports import Engine
from app.core.states import JobStatus
from app.engine.fake import FakeEngine, write_fake_adapter
from app.main import create_app
from app.models import Adapter, Job, Metric
from app.pipeline.template import ALPACA
from app.settings import Settings
from app.storage.job_queue import QUEUE, make_celery
from tests.blank import lay_tables

SEEDS = [
    {"task": "sentiment", "instruction": "Good or bad?", "input": f"Profit of firm {number}", "output": "good"}
    for number in range(4)
]
EVALUATION = [{"task": "sentiment", "instruction": "Good or bad?", "input": "Loss of firm 9", "output": "bad"}]


class LiveServer(uvicorn.Server):
    """uvicorn in a thread that says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    async def main_loop(self) -> None:
        """uvicorn looks ten times a second whether it is to end; tests end hundreds."""
        num_looks = 0
        while not await self.on_tick(num_looks):
            num_looks += 1
            await asyncio.sleep(0.01)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn rests a tenth of a second even where nobody is connected any more."""
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)
            return
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        await self.lifespan.shutdown()


@dataclass(frozen=True)
class Service:
    """The running service, its client, and its insides for looking at what was stored."""

    resources: Resources
    http: httpx.Client
    url: str

    def specialize(self, **changes: object) -> httpx.Response:
        """POST a request that is good but for ``changes``; None leaves a field out."""
        body = {"domain": "finance", "seeds": SEEDS, "evaluation": EVALUATION, "recipe": {"preset": "quick"}, **changes}
        return self.http.post("/specialize", json={key: value for key, value in body.items() if value is not None})

    def num_jobs(self) -> int:
        with self.resources.database.session(read_only=True) as uow:
            return len(uow.jobs.list(limit=1000))

    def stored(self) -> list[str]:
        """Everything a refusal must leave alone: domains, jobs, and the files of store and broker."""
        with self.resources.database.session(read_only=True) as uow:
            rows = [domain.name for domain in uow.domains.list()] + [job.id for job in uow.jobs.list(limit=1000)]
        folders = (self.resources.settings.artifacts_dir, self.resources.settings.broker_dir)
        return rows + [str(path) for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]

    def add_expert(self, domain: str = "finance", *, weights: bytes = b"\1" * 32, base: str = "fake-base") -> Adapter:
        """What a job that succeeded leaves: an adapter in the store, its figures, and a champion."""
        job_id = self.specialize(domain=domain).json()["id"]
        draft = self.resources.artifacts.draft(job_id, "adapter")
        write_fake_adapter(draft, base_name=base, weights=weights)
        artifact = self.resources.artifacts.commit(draft, kind="adapter", recipe={}, parents=[])
        now = self.resources.clock()
        attachment = FakeEngine(base_name=base).attach("new", artifact.folder)
        with self.resources.database.session() as uow:
            adapter = uow.adapters.add(
                domain,
                job_id=job_id,
                artifact_digest=artifact.digest,
                base=FakeEngine(base_name=base).wait_ready(),
                attachment=attachment,
                alpha=16,
                num_parameters=64,
                template=json.dumps(ALPACA.to_dict()),
                now=now,
            )
            uow.metrics.replace(adapter.id, job_id=job_id, metrics=_metrics(adapter))
            uow.domains.set_champion(domain, adapter.id, now=now, reason="gate: a test", job_id=job_id)
            uow.commit()
        return adapter

    def sent(self, *, within_seconds: float = 0.0) -> list[str]:
        """Take what waits in the broker: ids of jobs, at least one if it comes ``within_seconds``."""
        settings = self.resources.settings
        celery = make_celery(settings.resolved_broker_url, settings.broker_dir)
        ids: list[str] = []
        with (
            celery,
            celery.connection_for_read() as connection,
            connection.SimpleQueue(QUEUE) as queue,
            suppress(Empty),
        ):
            while True:
                message = queue.get(block=within_seconds > 0 and not ids, timeout=within_seconds)
                message.ack()
                ids.append(message.payload[0][0])
        return ids

    def job(self, job_id: str) -> Job:
        with self.resources.database.session(read_only=True) as uow:
            return uow.jobs.get(job_id)

    def finish(self, job_id: str, status: JobStatus) -> None:
        """End a job as its worker would."""
        now = self.resources.clock()
        with self.resources.database.session() as uow:
            uow.jobs.claim(job_id, owner="test", now=now, lease_seconds=30)
            uow.jobs.move(job_id, status, now=now)
            uow.commit()


def _metrics(adapter: Adapter) -> list[Metric]:
    return [
        Metric(
            adapter_id=adapter.id,
            job_id=adapter.job_id,
            task=task,
            metric="f1",
            n=10,
            against="base_template",
            shots=0,
            score=20.0,
            expert=30.0,
            difference=10.0,
            low=4.0,
            high=16.0,
        )
        for task in ("sentiment", "mean")
    ]


@contextmanager
def serve(folder: Path, *, engine: Engine | None = None, **settings: object) -> Iterator[Service]:
    """Open everything under ``folder``, serve it, and close it again."""
    options = {"warm_up": False, **settings}  # whose question and experts would be counted with the test's own
    chosen = Settings(data_dir=folder, engine="fake", base="fake-base", **options)  # type: ignore[arg-type]
    if chosen.database_url is None:
        lay_tables(folder / "selfspec.db")
    migrate(chosen)
    resources = build(chosen, role="api")
    if engine is not None:
        resources = replace(resources, engine=engine)
    config = uvicorn.Config(create_app(resources), log_config=None, lifespan="on", timeout_graceful_shutdown=1)
    server = LiveServer(config)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named: asyncio then never delays
    listener.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        assert server.is_up.wait(30)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=30, trust_env=False, verify=False) as client:
            yield Service(resources, client, url)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        resources.close()
