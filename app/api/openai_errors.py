"""Our errors in OpenAI's words for everything under /v1, and in vLLM's for the two routes that are vLLM's.

OpenAI's statuses are ours: its client has a class for each. vLLM answers 400 to whatever cannot be loaded, and OpenAI's
files and fine-tuning to whatever cannot be used.
"""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import Any

from app.api.schemas.errors import document
from app.api.schemas.openai_answers import OpenAIErrorBody, VllmErrorBody
from app.core.errors import AdapterRefused, Conflict, InvalidInput, NotFound, Problem, SelfspecError

PREFIX = "/v1/"
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
FILES, TUNING = "/v1/files", "/v1/fine_tuning"
_COMPLETIONS = "/v1/completions"
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_VLLM_TYPES = {401: "AuthenticationError", 403: "PermissionDeniedError", 404: "NotFoundError"}
_FIELDS = {"domain": "model", "adapter": "model", "max_new_tokens": "max_tokens"}  # ours: theirs
_TUNING_FIELDS = {
    "domain": "suffix",
    "base": "model",
    "seeds": "training_file",
    "evaluation": "validation_file",
    "job_id": "fine_tuning_job_id",
}


def render(error: SelfspecError, path: str) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer to a request for ``path``."""
    if path in (LOAD, UNLOAD):
        return vllm_error(error)
    if path.startswith((FILES, TUNING)):
        return tuning_error(error)
    return error.status, {"error": openai_error(error, path=path)}


def openai_error(error: SelfspecError, *, path: str = "") -> dict[str, Any]:
    """The object that stands under ``error``: message, type, param, code."""
    question = "prompt" if path == _COMPLETIONS else "messages"
    fields = {**_FIELDS, "instruction": question, "input": question}
    if type(error) is InvalidInput:
        error = InvalidInput([replace(one, field=fields.get(one.field, one.field)) for one in error.problems])
    is_about_model = isinstance(error, NotFound) and error.param in ("domain", "adapter", "model")
    return {
        "message": error.message,
        "type": _TYPES.get(error.status, "server_error" if _is_ours(error.status) else "invalid_request_error"),
        "param": fields.get(error.param, error.param) if error.param else None,
        "code": "model_not_found" if is_about_model else error.code,
    }


def tuning_error(error: SelfspecError) -> tuple[int, dict[str, Any]]:
    """Status and body for files and fine-tuning: ``param`` is a field of the request, also where a line is at fault."""
    status = HTTPStatus.BAD_REQUEST if type(error) is InvalidInput else error.status
    param = error.param
    if type(error) is InvalidInput:
        error = InvalidInput([_in_tuning_words(one) for one in error.problems])
        param = next((one.source if one.line is not None else one.field for one in error.problems), None)
    fields = {
        "message": error.message,
        "type": _TYPES.get(status, "server_error" if _is_ours(status) else "invalid_request_error"),
        "param": _TUNING_FIELDS.get(param, param) if param else None,
        "code": error.code,
    }
    return status, {"error": fields}


def _in_tuning_words(problem: Problem) -> Problem:
    field, source = problem.field, problem.source or ""
    return replace(problem, field=_TUNING_FIELDS.get(field, field), source=_TUNING_FIELDS.get(source, source) or None)


def vllm_error(error: SelfspecError) -> tuple[int, dict[str, Any]]:
    """vLLM's status and error object: flat, as older versions have it, and under ``error``, as newer ones have it."""
    is_mended_by_caller = isinstance(error, InvalidInput | Conflict | AdapterRefused)
    status = 400 if is_mended_by_caller and error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE else error.status
    kind = "InvalidUserInput" if isinstance(error, InvalidInput | Conflict) else "BadRequestError"
    fields = {
        "message": error.message,
        "type": _VLLM_TYPES.get(status, "InternalServerError" if _is_ours(status) else kind),
        "param": error.param,
        "code": status,
    }
    return status, {"object": "error", **fields, "error": fields}


def _is_ours(status: int) -> bool:
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR


def refusals(**examples: SelfspecError) -> dict[int | str, dict[str, Any]]:
    """Documentation of the refusals of a route under /v1: by name an error it can raise."""
    return document(examples, body=OpenAIErrorBody, render=lambda error: render(error, PREFIX))


def tuning_refusals(**examples: SelfspecError) -> dict[int | str, dict[str, Any]]:
    """The same for files and fine-tuning."""
    return document(examples, body=OpenAIErrorBody, render=tuning_error)


def vllm_refusals(**examples: SelfspecError) -> dict[int | str, dict[str, Any]]:
    """The same for vLLM's two routes."""
    return document(examples, body=VllmErrorBody, render=vllm_error)
