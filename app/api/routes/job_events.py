"""GET /jobs/{id}/events: what happened, by the page or as it happens."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Path, Query, Request, Response

from app.api import examples
from app.api.deps import ServicesDep
from app.api.following import Ended, Follower, Followers, Silence
from app.api.schemas.errors import INVALID_QUERY, refusals
from app.api.schemas.jobs import EventBody, EventPage
from app.api.sse import EventStream
from app.core.errors import NotFound
from app.services.container import Services

router = APIRouter(prefix="/jobs", tags=["jobs"])

RETRY_MS = 2000  # how long a browser waits before it asks again
_LARGEST_ID = 2**63 - 1
_MISSING = NotFound("there is no job 'job-1'", param="job_id")

DESCRIPTION = """\
Oldest first; `next` of a page is the `after` of the next one. docs/events.md lists the types.

With `stream=true` the answer is server-sent events: what there is behind `after`, then what happens, until the job has
ended and all was told; the last one is `done`. Each has the event's id, so a browser that lost the connection goes on
where it was (`Last-Event-ID`, which counts more than `after`). A stream that ends without `done` is to be asked for
again: the service is shutting down. A paused job keeps it open.
"""


@router.get(
    "/{job_id}/events",
    summary="Read or follow what happens",
    description=DESCRIPTION,
    response_model=EventPage,
    responses={
        200: {
            "description": "A page of events; with stream, server-sent events.",
            "content": {
                "application/json": {"example": {"data": [examples.EVENT], "next": None}},
                "text/event-stream": {"example": examples.EVENT_STREAM},
            },
        },
        **refusals(no_such_job=_MISSING, bad_limit=INVALID_QUERY),
    },
)
async def list_events(
    request: Request,
    services: ServicesDep,
    job_id: Annotated[str, Path(description="The job's id.", examples=[examples.JOB_ID])],
    after: Annotated[int, Query(ge=0, le=_LARGEST_ID, description="The last id you saw.", examples=[17])] = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="Events a page.", examples=[100])] = 100,
    stream: Annotated[bool, Query(description="Follow the job instead of one page.", examples=[False])] = False,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=_LARGEST_ID, description="Of a stream: the last id you saw.", examples=[17])
    ] = None,
) -> EventPage | Response:
    if stream:
        start = after if last_event_id is None else last_event_id
        follower = await _followers(request, services).follow(job_id, after=start)
        return EventStream(follower, chunks(follower), headers={})
    page = await to_thread.run_sync(lambda: services.jobs.events(job_id, after=after, limit=limit))
    return EventPage.model_validate({"data": page.items, "next": page.next}, from_attributes=True)


def _followers(request: Request, services: Services) -> Followers:
    """Those of the application, made on its event loop."""
    state = request.app.state
    if not hasattr(state, "followers"):
        state.followers = Followers(services.feed, is_over=lambda: state.drain.has_begun)
    followers: Followers = state.followers
    return followers


async def chunks(follower: Follower) -> AsyncIterator[bytes]:
    """What a follower is told, as server-sent events."""
    yield f"retry: {RETRY_MS}\n\n".encode("ascii")
    async for told in follower:
        if isinstance(told, Silence):
            yield b": still here\n\n"
        elif isinstance(told, Ended):
            done = json.dumps({"id": follower.job_id, "status": told.status})
            yield f"event: done\ndata: {done}\n\n".encode("ascii")
        else:
            yield b"".join(_event(EventBody.model_validate(event, from_attributes=True)) for event in told)


def _event(event: EventBody) -> bytes:
    data = json.dumps(event.model_dump(mode="json"))
    return f"id: {event.id}\nevent: {event.type}\ndata: {data}\n\n".encode("ascii")
