"""The two bodies of POST /specialize and /seeds/doctor, JSON and multipart, as one request; nothing is believed yet.

Faults of the form are kept as problems, to be told together with those of the content.
"""

from __future__ import annotations

from typing import Any

from anyio import to_thread
from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from app.core.errors import InvalidInput, Problem
from app.services.request_checks import RawRequest
from app.services.seed_files import Upload, decode_text, json_reason, parse_json

FIELDS = ("domain", "description", "seeds", "domains", "evaluation", "labelled", "recipe", "base", "webhook_url")
FILES = ("seeds", "evaluation", "labelled")
JSON, FORM = "application/json", "multipart/form-data"


async def read_request(request: Request) -> RawRequest:
    """Raises InvalidInput for a body that cannot be parsed, HTTPException 415 for another kind of body."""
    kind = parse_options_header(request.headers.get("content-type", JSON))[0].decode("latin-1")
    if kind == FORM:
        return await _read_form(request)
    if kind == JSON or kind.endswith("+json"):
        return await to_thread.run_sync(_read_json, await request.body())
    raise HTTPException(415, f"send {JSON} or {FORM}, not {kind}")


def _read_json(body: bytes) -> RawRequest:
    text, problems = decode_text(body, source="body")
    if problems:
        raise InvalidInput(problems)
    try:
        given = parse_json(text)
    except ValueError as error:
        raise InvalidInput([Problem("json", json_reason(error), getattr(error, "lineno", None), "body")]) from error
    if not isinstance(given, dict):
        raise InvalidInput([Problem("body", f"must be an object with {', '.join(FIELDS)}", source="body")])
    unknown = [Problem(key, _unknown(), source="body") for key in given if key not in FIELDS]
    return RawRequest(**{key: given.get(key) for key in FIELDS}, problems=tuple(unknown))


async def _read_form(request: Request) -> RawRequest:
    try:
        async with request.form(max_files=10, max_fields=20, max_part_size=2**31) as form:
            return await _collect(form)
    except MultipartParseError as error:
        raise InvalidInput([Problem("body", f"broken multipart: {error}", source="body")]) from error


async def _collect(form: FormData) -> RawRequest:
    """Empty texts and files without a name are how browsers send what was left out."""
    given: dict[str, Any] = {}
    problems = []
    for key, value in form.multi_items():
        content = await _content(value)
        if key not in FIELDS:
            problems.append(Problem(key, _unknown(), source="form"))
        elif key in given:
            problems.append(Problem(key, "is given twice", source="form"))
        elif content is not None:
            given[key], fault = _typed(key, content)
            problems += [Problem(key, fault, source="form")] if fault else []
    return RawRequest(**given, problems=tuple(problems))


async def _content(value: UploadFile | str) -> Upload | str | None:
    if isinstance(value, str):
        return value or None
    data = await value.read()
    return Upload(data, value.filename or "") if value.filename or data else None


def _typed(key: str, content: Upload | str) -> tuple[Upload | str | None, str | None]:
    """The content as its field wants it: seeds as a file, everything else as a text, which may come in a file."""
    if key in FILES:
        fault = f"must be a file, as in: curl -F {key}=@{key}.jsonl"
        return (content, None) if isinstance(content, Upload) else (None, fault)
    if key == "domains":
        return None, f"cannot be sent in a form: send several domains as {JSON}"
    if isinstance(content, str):
        return content, None
    text, problems = decode_text(content.data, source="form")
    return (None, problems[0].reason) if problems else (text, None)


def _unknown() -> str:
    return f"unknown field; there are: {', '.join(FIELDS)}"
