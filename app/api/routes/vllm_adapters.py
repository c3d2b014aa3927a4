"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM has them: for operators, into this process only."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Response
from fastapi.responses import PlainTextResponse

from app.api import examples, openai_examples
from app.api.admin import KEY_SETTING, check_admin
from app.api.deps import ServicesDep
from app.api.openai_errors import LOAD, UNLOAD, vllm_refusals
from app.api.schemas.vllm_adapters import LoadRequest, UnloadRequest
from app.core.errors import AdapterRefused, Conflict, Forbidden, InvalidInput, NotFound, NotReady, Problem, Unauthorized

router = APIRouter(tags=["vllm"], dependencies=[Depends(check_admin)])

_CLOSED = {
    "no_key": Unauthorized(f"send the key of {KEY_SETTING} as `Authorization: Bearer …`"),
    "switched_off": Forbidden(f"loading adapters by name is switched off; {KEY_SETTING} turns it on"),
    "faults": InvalidInput([Problem("lora_name", "is missing", source="body")]),
}


def _said(text: str) -> str:
    return f"Success: LoRA adapter {text} successfully."


@router.post(
    LOAD,
    summary="Load an adapter by name",
    description="Until it is unloaded or this process ends, `model` may be this name. Its name cannot be one that the "
    "base, a domain or a version has. For operators.",
    response_class=Response,
    responses={
        200: examples.response("It is loaded.", _said("'press-releases' added"), kind="text/plain"),
        **vllm_refusals(
            **_CLOSED,
            outside=Forbidden("/etc is not under a folder that adapters may be loaded from", param="lora_path"),
            name_taken=Conflict("adapter 'press-releases' is loaded already", param="lora_name"),
            does_not_fit=AdapterRefused("layer 'q_proj' has another shape"),
            nothing_there=NotFound("no adapter found at /srv/adapters/press", param="lora_path"),
            loading=NotReady("the base is still loading"),
        ),
    },
)
def load_lora_adapter(
    services: ServicesDep,
    body: Annotated[
        LoadRequest, Body(openapi_examples={"load": {"summary": "A folder", "value": openai_examples.LOAD}})
    ],
) -> PlainTextResponse:
    loaded = services.loaded.load(body.lora_name, body.lora_path, replace=body.load_inplace)
    return PlainTextResponse(_said(f"'{loaded.name}' added"))


@router.post(
    UNLOAD,
    summary="Unload an adapter",
    description="Forgets the name; answers that are being written are still finished. For operators.",
    response_class=Response,
    responses={
        200: examples.response("It is gone.", _said("'press-releases' removed"), kind="text/plain"),
        **vllm_refusals(**_CLOSED, unknown=NotFound("no adapter is loaded as 'press'", param="lora_name")),
    },
)
def unload_lora_adapter(
    services: ServicesDep,
    body: Annotated[
        UnloadRequest, Body(openapi_examples={"unload": {"summary": "A name", "value": openai_examples.UNLOAD}})
    ],
) -> PlainTextResponse:
    loaded = services.loaded.unload(body.lora_name)
    return PlainTextResponse(_said(f"'{loaded.name}' removed"))
