"""The bodies of POST /corpora, multipart or raw, as one file on disk; nothing in it is believed yet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import SpooledTemporaryFile

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from app.core.errors import InvalidInput, Problem

FORM = "multipart/form-data"
RAW = {
    "application/x-ndjson": "corpus.jsonl",
    "application/jsonl": "corpus.jsonl",
    "text/plain": "corpus.txt",
    "application/octet-stream": "",
}  # kind of body: the name that says how to read it
_IN_MEMORY_BYTES = 1024 * 1024


@asynccontextmanager
async def corpus_file(request: Request) -> AsyncIterator[UploadFile]:
    """The file, at its beginning; it is gone at the end of the block.

    Raises InvalidInput for a form without it, HTTPException 415 for another kind of body.
    """
    kind = parse_options_header(request.headers.get("content-type", "application/octet-stream"))[0].decode("latin-1")
    if kind == FORM:
        try:
            async with request.form(max_files=10, max_fields=10) as form:
                file = form.get("file")
                if not isinstance(file, UploadFile) or set(form) != {"file"}:
                    reason = "must be the form's only field, and a file, as in: curl -F file=@corpus.jsonl"
                    raise InvalidInput([Problem("file", reason, source="form")])
                yield file
        except MultipartParseError as error:
            raise InvalidInput([Problem("body", f"broken multipart: {error}", source="body")]) from error
    elif kind in RAW:
        async with _spooled(request, filename=RAW[kind]) as file:
            yield file
    else:
        raise HTTPException(415, f"send {FORM}, {', '.join(RAW)}, not {kind}")


@asynccontextmanager
async def _spooled(request: Request, *, filename: str) -> AsyncIterator[UploadFile]:
    with SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as spool:
        file = UploadFile(spool, filename=filename)  # type: ignore[arg-type]  # what Starlette makes of a form's file
        async for chunk in request.stream():
            await file.write(chunk)
        await file.seek(0)
        yield file
