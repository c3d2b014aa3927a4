"""Every succeeded job's adapter is asked over HTTP, and must answer itself."""

from __future__ import annotations

from collections.abc import Iterator

import httpx

from tests.chaos.checks import Found

QUESTION = "Is the tone good?"


def check_answers(found: Found, http: httpx.Client) -> Iterator[str]:
    """By the version's name, through the OpenAI route; not one may answer like the bare base."""
    of_base = _text(http.post("/v1/chat/completions", json=_chat(next(job.base for job in found.jobs))))
    adapters = {job.adapter_id for job in found.succeeded}
    for adapter in found.adapters:
        if adapter.id not in adapters:
            continue
        answer = http.post("/v1/chat/completions", json=_chat(adapter.name))
        who = answer.headers.get("X-Selfspec-Adapter")
        if not answer.is_success:
            yield f"{adapter.name} answered {answer.status_code}: {answer.text[:200]}"
        elif who != adapter.name or answer.json()["model"] != adapter.name:
            yield f"{adapter.name} was asked and {who} answered"
        elif _text(answer) == of_base:
            yield f"{adapter.name} answers like the bare base"


def _chat(model: str) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}


def _text(answer: httpx.Response) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])
