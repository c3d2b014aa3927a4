"""The API process: opens the resources, mounts the routes and the one error handler, closes everything at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from anyio import to_thread
from fastapi import Depends, FastAPI

from app import __version__
from app.api import admin, deps, docs, errors, openapi
from app.api.body_limit import BodyLimit
from app.api.routes import (
    adapters,
    corpora,
    domains,
    engine,
    generate,
    health,
    jobs,
    lineage,
    openai,
    openai_models,
    seeds,
    specialize,
    vllm_adapters,
)
from app.bootstrap import Resources, build
from app.core.ports import Engine
from app.services.container import Services
from app.services.dispatch import Dispatcher
from app.services.seeds import Limits
from app.settings import Settings
from app.watch import Watch

log = logging.getLogger(__name__)

DESCRIPTION = """\
Turns a handful of labelled examples of a domain into an expert, served beside other experts on one shared base model.

1. `POST /specialize` with seeds makes a job.
2. `GET /jobs/{job_id}` says how far it is; `GET /jobs/{job_id}/metrics` compares base and expert.
3. `POST /generate?domain=…` asks the expert; without `domain`, the bare base answers.
"""


def create_app(resources: Resources | None = None) -> FastAPI:
    """The application. Its lifespan opens and closes what the environment says; given ``resources`` stay open."""
    settings = resources.settings if resources is not None else Settings()
    app = FastAPI(
        title="selfspec",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(resources, settings),
    )
    app.add_middleware(BodyLimit, max_bytes=settings.max_upload_bytes, max_corpus_bytes=settings.max_corpus_bytes)
    app.state.watch = Watch(app, settings)
    errors.install(app)
    docs.install(app)
    openapi.install(app)
    admin.install(app, settings.admin_key.get_secret_value() if settings.admin_key is not None else None)
    rooms = (specialize, seeds, jobs, lineage, corpora, domains, adapters)
    for room in (*rooms, generate, openai, openai_models, vllm_adapters, engine, health):
        app.include_router(room.router, dependencies=[Depends(deps.check_url)])
    return app


def _lifespan(given: Resources | None, settings: Settings) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        resources = given if given is not None else await to_thread.run_sync(_open, settings)
        try:
            with app.state.watch.opened(resources) as watched:
                services = make_services(resources, engine=watched)
                app.state.watch.report_to(services.readiness)
                deps.bind(app, services)
                async with _sweeping(services.dispatcher, every_seconds=settings.lease_seconds):
                    yield
        finally:
            if given is None:
                await to_thread.run_sync(resources.close)

    return lifespan


def _open(settings: Settings) -> Resources:
    return build(settings, role="api")


def make_services(resources: Resources, *, engine: Engine) -> Services:
    """The services on these resources, with this engine in place of theirs."""
    settings = resources.settings
    return Services.build(
        database=resources.database,
        artifacts=resources.artifacts,
        queue=resources.queue,
        engine=engine,
        clock=resources.clock,
        base=settings.base,
        adapter_roots=settings.resolved_adapter_roots,
        limits=Limits(settings.max_seeds, settings.max_field_chars, settings.max_lora_rank),
        lease_seconds=settings.lease_seconds,
        small_corpus_passages=settings.small_corpus_passages,
    )


@asynccontextmanager
async def _sweeping(dispatcher: Dispatcher, *, every_seconds: float) -> AsyncIterator[None]:
    """The sweep runs inside it."""
    task = asyncio.create_task(_sweep_forever(dispatcher, every_seconds=every_seconds))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _sweep_forever(dispatcher: Dispatcher, *, every_seconds: float) -> None:
    """At once and then again and again; a sweep that fails is logged, not fatal."""
    while True:
        try:
            if sent := await to_thread.run_sync(dispatcher.sweep):
                log.info("sent again: %s", ", ".join(sent))
        except Exception:
            log.exception("the sweep failed")
        await asyncio.sleep(every_seconds)
