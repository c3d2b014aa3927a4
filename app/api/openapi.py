"""The OpenAPI document, with what FastAPI cannot see: the bodies parsed by hand, our own refusals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from app.api.schemas.specialize import DoctorRequest, SpecializeRequest

REF = "#/components/schemas/"
_HAND_PARSED: tuple[type[BaseModel], ...] = (SpecializeRequest, DoctorRequest)
_FRAMEWORKS_OWN = ("HTTPValidationError", "ValidationError")  # every 422 of ours has an ErrorBody instead


def install(app: FastAPI, *, paths: Sequence[str]) -> None:
    """Let ``app.openapi()`` be complete, its paths in the order of ``paths``."""
    app.openapi = _completed(app.openapi, paths)  # type: ignore[method-assign]


def _completed(original: Callable[[], dict[str, Any]], paths: Sequence[str]) -> Callable[[], dict[str, Any]]:
    def openapi() -> dict[str, Any]:
        document = original()
        document["paths"] = dict(sorted(document["paths"].items(), key=lambda item: paths.index(item[0])))
        schemas = document["components"]["schemas"]
        for model in _HAND_PARSED:
            schema = model.model_json_schema(ref_template=REF + "{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        for operations in document["paths"].values():
            for operation in operations.values():
                _drop_framework_errors(operation["responses"])
        for name in _FRAMEWORKS_OWN:
            schemas.pop(name, None)
        return document

    return openapi


def _drop_framework_errors(responses: dict[str, Any]) -> None:
    schema = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if schema.get("$ref") == REF + _FRAMEWORKS_OWN[0]:
        del responses["422"]
