"""The form of POST /v1/files as one file with its purpose; nothing in it is believed yet."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from app.api.schemas.openai_files import FORM_SCHEMA
from app.core.errors import InvalidInput, Problem
from app.services.seed_files import Upload
from app.services.uploaded_files import Lifetime

FORM = "multipart/form-data"
FIELDS = tuple(FORM_SCHEMA["properties"])


@dataclass(frozen=True, slots=True)
class FileForm:
    """What came in."""

    upload: Upload
    purpose: str | None
    lifetime: Lifetime | None


async def read_file_form(request: Request) -> FileForm:
    """Raises InvalidInput for a form that cannot be used, HTTPException 415 for another kind of body."""
    kind = parse_options_header(request.headers.get("content-type", ""))[0].decode("latin-1")
    if kind != FORM:
        raise HTTPException(415, f"send {FORM}, not {kind or 'a body without a content type'}")
    try:
        async with request.form(max_files=10, max_fields=20) as form:
            return await _read(form)
    except MultipartParseError as error:
        raise InvalidInput([Problem("body", f"broken multipart: {error}", source="body")]) from error


async def _read(form: FormData) -> FileForm:
    keys = [key for key, _ in form.multi_items()]
    problems = [
        Problem(key, f"unknown field; there are: {', '.join(FIELDS)}", source="form")
        for key in keys
        if key not in FIELDS
    ]
    problems += [Problem(key, "is given twice", source="form") for key in FIELDS if keys.count(key) > 1]
    file = form.get("file")
    if not isinstance(file, UploadFile):
        problems.append(Problem("file", "must be a file, as in: curl -F file=@seeds.jsonl", source="form"))
    problems += [
        Problem(key, "must be a text", source="form") for key in FIELDS[1:] if isinstance(form.get(key), UploadFile)
    ]
    if problems or not isinstance(file, UploadFile):
        raise InvalidInput(problems)
    purpose, anchor, seconds = (None if (value := form.get(key)) is None else str(value) for key in FIELDS[1:])
    upload = Upload(await file.read(), file.filename or "")
    return FileForm(upload, purpose, Lifetime(anchor, seconds) if anchor or seconds else None)
