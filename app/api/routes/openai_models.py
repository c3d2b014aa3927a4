"""GET /v1/models: the names that ``model`` may be."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from app.api import examples, openai_examples
from app.api.deps import ServicesDep
from app.api.openai_errors import refusals
from app.api.schemas.openai_answers import ModelBody, ModelList
from app.core.errors import NotFound, NotReady
from app.services.served_names import ServedName

router = APIRouter(prefix="/v1/models", tags=["openai"])

_LOADING = NotReady("the base is still loading")
_NO_SUCH_MODEL = NotFound("there is no 'law'; GET /v1/models lists what there is", param="model")


@router.get(
    "",
    summary="List models",
    description="What `model` may be: the base, each domain (its champion), each version, and adapters loaded by name.",
    responses={
        200: examples.response("All names.", openai_examples.MODELS),
        **refusals(loading=_LOADING),
    },
)
def list_models(services: ServicesDep) -> ModelList:
    return ModelList(data=[_model(served) for served in services.names.list()])


@router.get(
    "/{model:path}",
    summary="See one model",
    description="One of the names of the list, or an adapter's id.",
    responses={
        200: examples.response("The name.", openai_examples.MODEL),
        **refusals(no_such_model=_NO_SUCH_MODEL, loading=_LOADING),
    },
)
def get_model(
    model: Annotated[str, Path(description="Its name.", examples=["finance@v1"])], services: ServicesDep
) -> ModelBody:
    return _model(services.names.get(model))


def _model(served: ServedName) -> ModelBody:
    return ModelBody(
        id=served.name,
        created=int(served.created_at.timestamp()),
        root=served.root,
        parent=served.parent,
        max_model_len=served.context_tokens,
    )
