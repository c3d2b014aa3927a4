"""Waits for a model's answer without holding a thread, and gives up when the caller has left."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any, TypeVar

from fastapi import Request

T = TypeVar("T")


class CallerLeft(Exception):
    """Nobody waits for the answer any more."""


async def result_or_left(request: Request, future: Future[T]) -> T:
    """The future's result; raises CallerLeft, with the future cancelled, once the caller has closed the connection.

    The body of ``request`` must have been read: what the connection says next is that it ended.
    """
    answer = asyncio.ensure_future(asyncio.wrap_future(future))
    left = asyncio.ensure_future(_until_left(request))
    try:
        both: list[asyncio.Future[Any]] = [answer, left]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise CallerLeft
        return answer.result()
    finally:
        answer.cancel()  # also cancels the model's future, unless it is done
        left.cancel()


async def _until_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
