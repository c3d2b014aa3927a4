"""The worked examples of /v1, in the same story as ``examples``."""

from __future__ import annotations

from typing import Any

from app.api.examples import QUESTION

_CREATED = 1767604091
_MODEL, _BASE = "finance@v1", "smollm2-135m-instruct"
_USAGE = {
    "prompt_tokens": 58,
    "completion_tokens": 2,
    "total_tokens": 60,
    "prompt_tokens_details": {"cached_tokens": 0},
}

CHAT: dict[str, Any] = {
    "model": "finance",
    "messages": [{"role": "user", "content": f"{QUESTION['instruction']}\n\n{QUESTION['input']}"}],
    "max_completion_tokens": 16,
    "temperature": 0,
}
BASE_CHAT = {**CHAT, "model": _BASE}
CHAT_ANSWER = {
    "id": "chatcmpl-4f1a2b3c4d5e6f70",
    "object": "chat.completion",
    "created": _CREATED,
    "model": _MODEL,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "bad"}, "finish_reason": "stop"}],
    "usage": _USAGE,
}
_CHUNK = (
    'data: {"id": "chatcmpl-4f1a2b3c4d5e6f70", "object": "chat.completion.chunk", "created": 1767604091, '
    '"model": "finance@v1", "choices": [{"index": 0, "delta": %s, "logprobs": null, "finish_reason": %s}]}\n\n'
)
CHAT_STREAM = (
    _CHUNK % ('{"role": "assistant", "content": ""}', "null")
    + _CHUNK % ('{"content": "bad"}', "null")
    + _CHUNK % ("{}", '"stop"')
    + "data: [DONE]\n\n"
)
COMPLETION: dict[str, Any] = {
    "model": "finance",
    "prompt": f"{QUESTION['instruction']}\n\n{QUESTION['input']}",
    "max_tokens": 16,
    "temperature": 0,
}
COMPLETION_ANSWER = {
    "id": "cmpl-4f1a2b3c4d5e6f70",
    "object": "text_completion",
    "created": _CREATED,
    "model": _MODEL,
    "choices": [{"index": 0, "text": "bad", "finish_reason": "stop"}],
    "usage": _USAGE,
}
_TEXT_CHUNK = (
    'data: {"id": "cmpl-4f1a2b3c4d5e6f70", "object": "text_completion", "created": 1767604091, "model": "finance@v1", '
    '"choices": [{"index": 0, "text": "%s", "logprobs": null, "finish_reason": %s}]}\n\n'
)
COMPLETION_STREAM = _TEXT_CHUNK % ("bad", "null") + _TEXT_CHUNK % ("", '"stop"') + "data: [DONE]\n\n"


def _model(name: str, root: str, parent: str | None) -> dict[str, Any]:
    about = {"object": "model", "created": _CREATED, "owned_by": "selfspec", "max_model_len": 8192}
    return {"id": name, "root": root, "parent": parent, **about}


MODEL = _model("finance", _MODEL, _BASE)
MODELS = {
    "object": "list",
    "data": [_model(_BASE, _BASE, None), MODEL, _model(_MODEL, "5f0c9b7e2a4d1836", _BASE)],
}
LOAD = {"lora_name": "press-releases", "lora_path": "/srv/adapters/press-releases"}
UNLOAD = {"lora_name": "press-releases"}
