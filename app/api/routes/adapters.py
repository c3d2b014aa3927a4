"""/adapters: single versions of experts, and their files."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import StreamingResponse

from app.api import examples
from app.api.deps import ServicesDep
from app.api.schemas.domains import AdapterBody
from app.api.schemas.errors import refusals
from app.core.errors import NotFound

router = APIRouter(prefix="/adapters", tags=["adapters"])

AdapterId = Annotated[str, Path(description="Its id, or its name such as finance@v1.", examples=[examples.ADAPTER_ID])]
_MISSING = NotFound("there is no adapter 'finance@v9'", param="adapter")


@router.get(
    "/{adapter}",
    summary="See one adapter",
    description="What it is, what it was made on, the proof that it acts, and its figures for every task.",
    responses={200: examples.response("The adapter.", examples.ADAPTER), **refusals(no_such_adapter=_MISSING)},
)
def get_adapter(adapter: AdapterId, services: ServicesDep) -> AdapterBody:
    return AdapterBody.model_validate(services.adapters.get(adapter), from_attributes=True)


@router.get(
    "/{adapter}/download",
    summary="Download an adapter",
    description="A .tar of the PEFT folder (adapter_config.json, adapter_model.safetensors), its prompt template and "
    "its manifest. Right only on the base and quantization it was made on.",
    response_class=StreamingResponse,
    responses={
        200: examples.response("The archive.", "(bytes of a tar archive)", kind="application/x-tar"),
        **refusals(no_such_adapter=_MISSING),
    },
)
def download_adapter(adapter: AdapterId, services: ServicesDep) -> StreamingResponse:
    archive = services.adapters.archive(adapter)
    headers = {
        "Content-Disposition": f'attachment; filename="{archive.filename}"',
        "Content-Length": str(archive.num_bytes),
    }
    return StreamingResponse(archive.chunks, media_type="application/x-tar", headers=headers)
