"""The one place where what went wrong becomes HTTP: ``{"error": {"code", "message", "param", …}}``, whatever it was.

Under /v1 the same is said in the words of OpenAI and vLLM (``openai_errors``).
"""

from __future__ import annotations

import errno
import json
import logging
from http import HTTPStatus
from tempfile import gettempdir
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from app.api import openai_errors
from app.core.errors import DiskFull, InvalidInput, NotReady, Overloaded, Problem, SelfspecError, Unauthorized

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 5
NATIVE, LORAX = "native body", "LoRAX body"  # the shapes of a body that has two; no part of a field's name


class ErrorResponse(JSONResponse):
    """JSON in ASCII: a message may quote text that UTF-8 cannot carry."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode("ascii")


def install(app: FastAPI) -> None:
    """Let ``app`` answer every exception with an error body."""
    app.add_exception_handler(SelfspecError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OSError, _system)
    app.add_exception_handler(Exception, _unexpected)


def error_response(error: SelfspecError, *, path: str = "") -> ErrorResponse:
    """The answer to a request for ``path`` for an error of the tree; 429, 503 and 507 say when to ask again."""
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if isinstance(error, NotReady | Overloaded | DiskFull) else {}
    if isinstance(error, Unauthorized):
        headers = {"WWW-Authenticate": "Bearer"}
    if path.startswith(openai_errors.PREFIX):
        status, body = openai_errors.render(error, path)
        return ErrorResponse(body, status_code=status, headers=headers)
    return ErrorResponse({"error": error.to_dict()}, status_code=error.status, headers=headers)


async def _known(request: Request, error: Exception) -> ErrorResponse:
    assert isinstance(error, SelfspecError)
    if isinstance(error, DiskFull):
        log.error("%s %s failed: %s", request.method, request.url.path, error)
    elif error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, NotReady):
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return error_response(error, path=request.url.path)


async def _invalid(request: Request, error: Exception) -> ErrorResponse:
    assert isinstance(error, RequestValidationError)
    return error_response(InvalidInput([_problem(fault) for fault in error.errors()]), path=request.url.path)


def _problem(fault: dict[str, Any]) -> Problem:
    """FastAPI's fault in our words: its ``loc`` starts with body, query, path or header."""
    source, *where = (str(part) for part in fault["loc"] if part not in (NATIVE, LORAX))
    if fault["type"] == "json_invalid":
        return Problem("json", f"broken JSON: {fault['ctx']['error']} (at character {where[0]})", source=source)
    reason = {"missing": "is missing", "extra_forbidden": "unknown key"}.get(fault["type"], fault["msg"])
    return Problem(".".join(where) or source, reason, source=source)


async def _http(request: Request, error: Exception) -> ErrorResponse:
    """What the framework refuses itself: no such path, no such method, an unusable multipart body."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    message = {
        HTTPStatus.NOT_FOUND: f"there is no {request.url.path}; see /docs for what there is",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.url.path} does not answer {request.method}; see /docs",
    }.get(status, str(error.detail))
    refusal = SelfspecError(message)
    refusal.status, refusal.code = status, status.phrase.lower().replace(" ", "_")
    response = error_response(refusal, path=request.url.path)
    response.headers.update(error.headers or {})
    return response


async def _system(request: Request, error: Exception) -> ErrorResponse:
    """What arrives is kept in temporary files until it is read, and they may find no room."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise error
    where = error.filename or f"{gettempdir()} (TMPDIR names another place for temporary files)"
    return await _known(request, DiskFull(f"the disk is full: {where}"))


async def _unexpected(request: Request, error: Exception) -> ErrorResponse:
    """A bug: the log has the traceback, the caller gets none of it."""
    log.error("%s %s raised", request.method, request.url.path, exc_info=error)
    bug = SelfspecError("something went wrong inside the service; its log says what")
    return error_response(bug, path=request.url.path)
