"""/v1/files: training and validation files, and what jobs made of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import FileResponse

from app.api import examples, tuning_examples
from app.api.deps import ServicesDep
from app.api.file_body import FORM, read_file_form
from app.api.openai_errors import tuning_refusals
from app.api.schemas.errors import INVALID_QUERY
from app.api.schemas.openai_files import FORM_SCHEMA, FileBody, FileDeletedBody, FileList
from app.core.errors import Conflict, InvalidInput, NotFound, Problem, TooLarge
from app.services.job_files import FileView

router = APIRouter(prefix="/v1/files", tags=["openai"])

DESCRIPTION = """\
Takes in a file for a fine-tuning. Purposes `fine-tune`, `selfspec-seeds` and `selfspec-evaluation` are labelled
examples, one a line: a chat, `{"messages": [system?, user, assistant], "task"?: …}`, or a seed,
`{"task", "instruction", "input", "output"}`. They are checked at once, and a refusal tells the lines at fault. Files
for `evals` and `user_data` are kept as they are.
"""
_BODY: dict[str, Any] = {
    "required": True,
    "content": {FORM: {"schema": FORM_SCHEMA, "example": tuning_examples.FORM}},
}
_MISSING = NotFound("there is no file 'file-1'; POST /v1/files makes one", param="file_id")
_BYTES = "application/octet-stream"

FileId = Annotated[str, Path(description="The file's id.", examples=[tuning_examples.FILE_ID])]


@router.post(
    "",
    summary="Upload a file",
    description=DESCRIPTION,
    response_model=FileBody,
    responses={
        200: examples.response("The file was stored.", tuning_examples.FILE),
        **tuning_refusals(
            faults=InvalidInput([Problem("messages.1.content", "is empty", 23, "file")]),
            too_large=TooLarge([Problem("body", "larger than 33,554,432 bytes (SELFSPEC_MAX_UPLOAD_BYTES)")]),
        ),
    },
    openapi_extra={"requestBody": _BODY},
)
async def create_file(request: Request, services: ServicesDep) -> FileBody:
    form = await read_file_form(request)
    file = await to_thread.run_sync(
        lambda: services.files.add(form.upload, purpose=form.purpose, lifetime=form.lifetime)
    )
    return _body(file)


@router.get(
    "",
    summary="List files",
    description="Files that were uploaded, the newest first; read on with `after`.",
    responses={
        200: examples.response("A page of files.", tuning_examples.FILES),
        **tuning_refusals(no_such_file=_MISSING, bad_limit=INVALID_QUERY),
    },
)
def list_files(
    services: ServicesDep,
    after: Annotated[
        str | None, Query(description="The last id of the page before.", examples=[tuning_examples.FILE_ID])
    ] = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="Files a page.", examples=[100])] = 10_000,
    order: Annotated[
        Literal["asc", "desc"], Query(description="By the time they were sent.", examples=["desc"])
    ] = "desc",
    purpose: Annotated[str | None, Query(description="With this purpose only.", examples=["fine-tune"])] = None,
) -> FileList:
    page = services.files.list(after=after, limit=limit, purpose=purpose, oldest_first=order == "asc")
    data = [_body(file) for file in page.items]
    return FileList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=page.next is not None,
    )


@router.get(
    "/{file_id}",
    summary="See one file",
    description="A file that was uploaded, a job's set of examples, or what a job made (its `result_files`).",
    responses={200: examples.response("The file.", tuning_examples.FILE), **tuning_refusals(no_such_file=_MISSING)},
)
def get_file(file_id: FileId, services: ServicesDep) -> FileBody:
    return _body(services.files.get(file_id))


@router.get(
    "/{file_id}/content",
    summary="Download a file",
    description="Its bytes, as they were sent or made.",
    response_class=Response,
    responses={
        200: examples.response("The bytes.", tuning_examples.LINES, kind=_BYTES),
        **tuning_refusals(no_such_file=_MISSING),
    },
)
def get_file_content(file_id: FileId, services: ServicesDep) -> Response:
    content = services.files.content(file_id)
    if isinstance(content.data, bytes):
        return Response(content.data, media_type=_BYTES)
    return FileResponse(content.data, media_type=_BYTES, filename=content.filename)


@router.delete(
    "/{file_id}",
    summary="Delete a file",
    description="Refused while a job that was given it has not ended. Jobs that have ended keep what they learned.",
    responses={
        200: examples.response("The file is gone.", tuning_examples.DELETED),
        **tuning_refusals(
            no_such_file=_MISSING,
            in_use=Conflict(f"{examples.JOB_ID} was given it and has not ended: cancel it first", param="file_id"),
        ),
    },
)
def delete_file(file_id: FileId, services: ServicesDep) -> FileDeletedBody:
    services.files.delete(file_id)
    return FileDeletedBody(id=file_id)


def _body(file: FileView) -> FileBody:
    return FileBody(
        id=file.id,
        bytes=file.num_bytes,
        created_at=int(file.created_at.timestamp()),
        expires_at=None if file.expires_at is None else int(file.expires_at.timestamp()),
        filename=file.filename,
        purpose=file.purpose,
    )
