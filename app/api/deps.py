"""What routes are given: the process's services, without knowing how they were made."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI, Request

from app.core.errors import InvalidInput, Problem
from app.services.container import Services


def bind(app: FastAPI, services: Services) -> None:
    """Let the routes of ``app`` use ``services``."""
    app.state.services = services


async def get_services(request: Request) -> Services:
    """The services bound to the application. Like all dependencies here a coroutine: a function costs a thread."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


async def check_url(request: Request) -> None:
    """Raise InvalidInput for an address that PostgreSQL could not look up."""
    if "\x00" in request.scope["path"] or b"%00" in request.scope["query_string"]:
        raise InvalidInput([Problem("url", "holds the character U+0000")])


ServicesDep = Annotated[Services, Depends(get_services)]
