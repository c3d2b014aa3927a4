"""The API process: opens the resources, mounts the routes and the one error handler, closes everything at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any

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
    estimate,
    generate,
    health,
    job_events,
    job_moves,
    jobs,
    lineage,
    openai,
    openai_files,
    openai_models,
    openai_tuning,
    rows,
    seeds,
    specialize,
    vllm_adapters,
)
from app.bootstrap import Resources, build, build_retention
from app.core.ports import Engine
from app.services.container import Services
from app.services.dispatch import Dispatcher
from app.services.readiness import check_disk
from app.services.retention import Retention
from app.services.seeds import Limits
from app.services.webhook_options import WebhookOptions, key_of
from app.settings import Settings
from app.watch import Watch

log = logging.getLogger(__name__)

CLEAN_SECONDS = 3600.0  # between two times that what nobody needs is deleted
FIRST_CLEAN_SECONDS = 60.0  # from the start until the first

_ROOMS = (  # in the documentation's order
    specialize,
    estimate,
    seeds,
    jobs,
    job_events,
    job_moves,
    rows,
    lineage,
    corpora,
    domains,
    adapters,
    generate,
    openai,
    openai_files,
    openai_models,
    openai_tuning,
    vllm_adapters,
    engine,
    health,
)
_ASKED_MOST = (generate, openai)  # a request tries one room after the other: these come first

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
    openapi.install(app, paths=[route.path_format for room in _ROOMS for route in room.router.routes])
    admin.install(app, settings.admin_key.get_secret_value() if settings.admin_key is not None else None)
    for room in (*_ASKED_MOST, *(room for room in _ROOMS if room not in _ASKED_MOST)):
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
                folders = (settings.data_dir, settings.artifacts_dir)
                disk = partial(check_disk, folders, min_bytes=settings.min_free_bytes)
                services.readiness.add("disk", disk)
                deps.bind(app, services)
                sweeping = _repeating(partial(sweep, services.dispatcher), every_seconds=settings.lease_seconds)
                cleaning = _repeating(
                    partial(clean, build_retention(resources)),
                    every_seconds=CLEAN_SECONDS,
                    after_seconds=FIRST_CLEAN_SECONDS,
                )
                async with sweeping, cleaning, _beside(services.webhooks.run()):
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
        webhooks=_webhook_options(settings),
    )


def _webhook_options(settings: Settings) -> WebhookOptions:
    secrets = (settings.webhook_secret, settings.webhook_previous_secret)
    keys = tuple(key_of(secret.get_secret_value()) for secret in secrets if secret is not None)
    return WebhookOptions(keys, allow_private=settings.webhook_allow_private)


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """``work`` goes on inside it, and is given up at its end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _repeating(
    action: partial[None], *, every_seconds: float, after_seconds: float = 0
) -> AbstractAsyncContextManager[None]:
    """Inside it ``action`` runs on a thread, first ``after_seconds``; a time that fails is logged, not fatal."""
    return _beside(_repeat(action, every_seconds=every_seconds, after_seconds=after_seconds))


async def _repeat(action: partial[None], *, every_seconds: float, after_seconds: float) -> None:
    await asyncio.sleep(after_seconds)
    while True:
        try:
            await to_thread.run_sync(action)
        except Exception:
            log.exception("the %s failed; it is tried again in %g s", action.func.__name__, every_seconds)
        await asyncio.sleep(every_seconds)


def sweep(dispatcher: Dispatcher) -> None:
    """Send again what may have been lost."""
    if sent := dispatcher.sweep():
        log.info("sent again: %s", ", ".join(sent))


def clean(retention: Retention) -> None:
    """Delete what nobody needs any more, as far as the settings ask for it."""
    if (report := retention.clean()).count:
        log.info("retention: %s", "; ".join(report.lines()))
